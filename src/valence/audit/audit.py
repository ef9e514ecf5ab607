"""Look at labeled rows before anything is trained on them: :func:`audit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valence.audit.checks import (
    Finding,
    LabeledSource,
    find_class_sizes,
    find_contradictions,
    find_duplicates,
    find_label_variants,
    find_leaks,
    find_truncated,
    read_source,
)
from valence.audit.duplicates import near_pairs
from valence.audit.label_errors import BUDGET, find_label_errors
from valence.audit.languages import find_languages
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.batches import TOKEN_BUDGET, length_batches
from valence.data.collate import pad
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.inference import run_batches
from valence.models.pooling import masked_mean

AuditProgress = Callable[[str, float], None]
"""Called with the step and the fraction done."""
LEVELS = ("problem", "warning", "fine", "skipped")
MAX_ENCODER_ROWS = 20_000  # training rows above which label errors are judged by n-grams alone
TOKENIZER_BATCH = 2000  # texts tokenized at once


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        source: The rows.
        findings: One per check, those that matter first.
    """

    source: LabeledSource
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """One sentence."""
        rows = f"{len(self.source.rows)} rows"
        counts = [
            f"{n} {level}{'s' if n > 1 else ''}"
            for level in LEVELS[:2]
            if (n := sum(finding.level == level for finding in self.findings))
        ]
        return f"{self.source.name}: {' and '.join(counts) or 'nothing wrong'} in {rows}."


def audit(
    data: DataSpec,
    *,
    data_dir: str | Path | None = None,
    encoder: EncoderSpec | None = None,
    fast: bool = False,
    near: float = 0.8,
    budget: float = BUDGET,
    languages: Sequence[str] = (),
    progress: AuditProgress | None = None,
) -> Audit:
    """Check rows for leaks, duplicates, contradictions, label errors, languages and truncation.

    Args:
        data: Names the rows; no split is made.
        data_dir: As for ``load_dataset``.
        encoder: Whose length limit is checked and whose features judge the labels.
        fast: Judge labels by n-gram counts; the encoder is not run.
        near: Least similarity of near duplicates, in (0, 1].
        budget: Most labels of a class that are reported as wrong, as a fraction of it.
        languages: ISO 639 codes the texts should be in.
        progress: Called with the step and the fraction done.

    Raises:
        DataError: if the rows cannot be loaded.
        SpecError: if the spec subsamples them.
        ModelError: if the encoder cannot be loaded.
    """
    on_step = progress or (lambda step, fraction: None)
    spec = (encoder or EncoderSpec()).model_copy(update={"adaptation": "frozen"})
    on_step("read", 0.0)
    source = read_source(data, data_dir)
    on_step("duplicates", 0.1)
    pairs = near_pairs(source.rows["key"].tolist(), threshold=near)
    findings = [*find_leaks(source, pairs), *find_duplicates(source, pairs)]
    findings += [find_contradictions(source), find_label_variants(source), find_class_sizes(source)]
    on_step("languages", 0.2)
    findings.append(find_languages(source, languages))
    on_step("lengths", 0.3)
    tokenizer = TextTokenizer(spec)
    lengths = token_counts(tokenizer, source.rows["text"].tolist())
    findings.append(find_truncated(source, lengths, tokenizer.max_length))
    on_step("labels", 0.4)
    cheap = fast or len(source.of(source.training)) > MAX_ENCODER_ROWS

    def embed(texts: Sequence[str]) -> np.ndarray:
        return mean_features(
            Encoder(spec), tokenizer, texts, lambda x: on_step("labels", 0.4 + x / 2)
        )

    findings.append(find_label_errors(source, None if cheap else embed, budget=budget))
    on_step("done", 1.0)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Audit(source, tuple(findings))


def token_counts(tokenizer: TextTokenizer, texts: Sequence[str]) -> np.ndarray:
    """(N,) tokens of texts without truncation, special tokens and prompt included."""
    counts: list[int] = []
    for start in range(0, len(texts), TOKENIZER_BATCH):
        rows = tokenizer.backend(
            tokenizer.prompted(texts[start : start + TOKENIZER_BATCH]), return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )["input_ids"]  # fmt: skip
        counts += [len(ids) for ids in rows]
    return np.array(counts, dtype=np.int64)


def mean_features(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """(N, H) means of the token states of texts.

    Args:
        encoder: Set to evaluation mode.
        tokenizer: Its own.
        texts: N texts, truncated at the limit.
        progress: Called with the fraction done.
    """
    encoder.eval()
    encoded = tokenizer(texts)
    features = np.zeros((len(texts), encoder.hidden_size), dtype=np.float32)
    lengths = [len(ids) for ids in encoded.input_ids]
    done = 0

    def embed(rows: np.ndarray) -> int:
        batch = pad([encoded.input_ids[i] for i in rows], tokenizer.pad_id)
        features[rows] = masked_mean(encoder(**batch), batch["attention_mask"]).numpy()
        return len(rows)

    batches = list(length_batches(lengths, token_budget=TOKEN_BUDGET["cpu"]))
    for count in run_batches(embed, batches, device="cpu"):
        done += count
        if progress is not None:
            progress(done / len(texts))
    return features
