"""Look at labeled rows before anything is trained on them: :func:`audit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from valence.audit.token_lengths import token_lengths
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec

AuditProgress = Callable[[str, float], None]
"""Called with the step and the fraction done."""
LEVELS = ("problem", "warning", "fine", "skipped")
MAX_ENCODER_ROWS = 20_000  # training rows above which label errors are judged by n-grams alone


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
        return f"{self.source.name}: {' and '.join(counts) or 'no problems'} in {rows}."


def audit(
    data: DataSpec,
    *,
    data_dir: str | Path | None = None,
    encoder: EncoderSpec | None = None,
    encoder_features: bool = False,
    near: float = 0.8,
    budget: float = BUDGET,
    languages: Sequence[str] = (),
    progress: AuditProgress | None = None,
) -> Audit:
    """Check rows for leaks, duplicates, contradictions, label errors, languages and truncation.

    Args:
        data: Names the rows; no split is made.
        data_dir: As for ``load_dataset``.
        encoder: Whose length limit is checked.
        encoder_features: Judge labels by its features too, beside n-grams; up to 20,000
            training rows.
        near: Least similarity of near duplicates, in (0, 1].
        budget: Most labels of a class that are reported as wrong, as a fraction of it.
        languages: ISO 639 codes the texts should be in.
        progress: Called with the step and the fraction done.

    Raises:
        DataError: if the rows cannot be loaded.
        SpecError: if the spec subsamples them.
        ModelError: if the encoder cannot be loaded.
    """
    steps = _Steps(progress, 0.2 if encoder_features else 1.0)
    spec = (encoder or EncoderSpec()).model_copy(update={"adaptation": "frozen"})
    steps.begin("reading rows", 0.0)
    source = read_source(data, data_dir)
    steps.begin("comparing texts", 0.03)
    pairs = near_pairs(source.rows["key"].tolist(), threshold=near)
    findings = [*find_leaks(source, pairs), *find_duplicates(source, pairs)]
    findings += [find_contradictions(source), find_label_variants(source), find_class_sizes(source)]
    steps.begin("detecting languages", 0.1)
    findings.append(find_languages(source, languages))
    steps.begin("counting tokens", 0.5)
    lengths, limit = token_lengths(spec, source.rows["text"].tolist())
    findings.append(find_truncated(source, lengths, limit))
    steps.begin("checking labels", 0.58)
    few = len(source.of(source.training)) <= MAX_ENCODER_ROWS
    embed = partial(_embed, spec, steps) if encoder_features and few else None
    labels = find_label_errors(source, embed, budget=budget)
    if encoder_features and not few:
        note = f" The encoder was skipped: there are more than {MAX_ENCODER_ROWS:,} rows."
        labels = replace(labels, line=labels.line + note)
    findings.append(labels)
    steps.end()
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Audit(source, tuple(findings))


@dataclass(frozen=True)
class _Steps:
    """Progress over the steps of an audit.

    Attributes:
        progress: Called with the step and the fraction done.
        plain: Fraction of the whole that the steps without an encoder take.
    """

    progress: AuditProgress | None
    plain: float

    def begin(self, step: str, done: float) -> None:
        """A step begins when this fraction of those without an encoder is done."""
        self._show(step, self.plain * done)

    def encoded(self, done: float) -> None:
        """The encoder has read this fraction of the texts."""
        self._show("checking labels with the encoder", self.plain + (0.98 - self.plain) * done)

    def end(self) -> None:
        """All is done."""
        self._show("done", 1.0)

    def _show(self, step: str, done: float) -> None:
        if self.progress is not None:
            self.progress(step, done)


def _embed(spec: EncoderSpec, steps: _Steps, texts: Sequence[str]) -> np.ndarray:
    from valence.audit.encoder_features import lower_half_features

    return lower_half_features(spec, texts, steps.encoded)
