"""Adaptive self-alignment: a model's own confident answers on unlabelled texts train it on.

A text is kept where the answers under several sets of retrieved demonstrations agree and all
are sure; no label may have many more kept texts than the rarest. After every round the
validation score decides whether the training goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from valence.config.callbacks import ProgressCallback
from valence.data.dataset import Split
from valence.data.examples import Examples
from valence.distributed import process_group
from valence.errors import RunError
from valence.llm.classify import fitted
from valence.llm.finetune import SFTData, finetune
from valence.llm.finetune_spec import FineTuneResult, FinetuneSpec
from valence.llm.local import LanguageModel, load_language_model
from valence.llm.prompts import PromptRenderer, Question
from valence.llm.records import Example, with_demos
from valence.llm.retrieval import Embedder, Retriever

Count = Annotated[int, Field(ge=1)]


class AlignSpec(BaseModel):
    """How answers become sft_data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Count = 3
    sets: Annotated[int, Field(ge=2)] = 2
    """Sets of demonstrations that must lead to one answer: the nearest, the second nearest …"""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Least probability of the answer, in every set."""
    balance: Annotated[float, Field(ge=1)] = 2.0
    """Most kept texts of a label, in those of the rarest label that has some."""
    least_gain: float = 0.0
    """Of validation macro-F1; a round that gains no more is not kept and ends it."""


@dataclass(frozen=True)
class Round:
    """What became of a round.

    Attributes:
        number: 0 for the training on labelled texts alone.
        kept: Kept texts by label name.
        agreed: Share of the unlabelled texts whose answers agree under all sets.
        macro_f1: On validation, after it.
        better: Whether its adapter was kept.
    """

    number: int
    kept: dict[str, int]
    agreed: float
    macro_f1: float
    better: bool


def self_align(
    spec: FinetuneSpec,
    how: AlignSpec,
    sft_data: SFTData,
    texts: Sequence[str],
    out: Path,
    *,
    embedder: Embedder,
    report: ProgressCallback | None = None,
) -> tuple[FineTuneResult, list[Round]]:
    """Fine-tune on labelled texts, then on the model's own answers while validation gains.

    Args:
        spec: How every round is trained.
        how: How answers are chosen.
        sft_data: Labelled questions, the source of demonstrations too.
        texts: Unlabelled texts of the target.
        out: Folder of the adapter; ``rounds.csv`` is added to what ``finetune`` writes.
        embedder: Makes the vectors by which demonstrations are found.
        report: Told how far it is.

    Raises:
        DataError, ModelError, SpecError, RunError: as ``finetune``.
    """
    process_group.require_single_process(
        "Self-alignment", "start it without a launcher, or leave out the texts"
    )
    work = out.with_name(f".{out.name}.rounds")
    told = finetune(spec, sft_data, work / "0", report=report)
    best = 0
    rounds = [Round(0, {}, 0.0, told.validation["macro_f1"] or 0.0, better=True)]
    for number in range(1, how.rounds + 1):
        start = work / str(best)
        more, agreed = own_lessons(spec, how, sft_data, texts, start, embedder=embedder)
        kept = {name: sum(sft_data.wording.classes[e.label] == name for e in more)
                for name in sft_data.wording.classes}  # fmt: skip
        if not more:
            rounds.append(Round(number, kept, agreed, rounds[best].macro_f1, better=False))
            break
        longer = SFTData(sft_data.data, sft_data.template, sft_data.wording,
                         [*sft_data.train, *more], sft_data.validation)  # fmt: skip
        tried = finetune(spec, longer, work / str(number), start=start, report=report)
        value = tried.validation["macro_f1"] or 0.0
        better = value - rounds[best].macro_f1 > how.least_gain
        rounds.append(Round(number, kept, agreed, value, better))
        if not better:
            break
        told, best = tried, number
    _finish(work, best, rounds, out)
    return told, rounds


def own_lessons(
    spec: FinetuneSpec, how: AlignSpec, sft_data: SFTData, texts: Sequence[str], adapter: Path, *,
    embedder: Embedder,
) -> tuple[list[Example], float]:  # fmt: skip
    """The model's answers that are sure, agreed and balanced, and the share that agreed."""
    pool = Split(
        [e.question.text for e in sft_data.train],
        np.array([e.label for e in sft_data.train], dtype=np.int64),
        np.arange(len(sft_data.train)).astype(str),
    )
    wording = sft_data.wording
    retriever = Retriever(embedder, pool, len(wording.classes))
    nearest_rows = retriever.find(Examples(texts), how.sets)
    speaker = load_language_model(
        str(adapter), quantization=spec.quantization, device=spec.device, max_length=spec.cutoff
    )
    shares = []
    for place in range(how.sets):
        demos = with_demos(wording, pool, nearest_rows[:, :, place : place + 1])
        asked = [Question(text, own) for text, own in zip(texts, demos, strict=True)]
        shares.append(_shares(speaker, wording, asked))
        if place == 0:
            nearest = asked
    chosen, labels, agreed = choose(np.stack(shares), how)
    return [Example(nearest[i], int(labels[i])) for i in chosen], agreed


def choose(shares: np.ndarray, how: AlignSpec) -> tuple[np.ndarray, np.ndarray, float]:
    """Which of N texts are kept, by agreement, sureness and balance of labels.

    Args:
        shares: (S, N, C) label probabilities under S sets of demonstrations.
        how: The limits.

    Returns:
        Kept rows, the surest first within a label; (N,) labels of all rows; the share of
        rows on whose label all sets agree.
    """
    labels = shares.argmax(axis=2)
    agree = (labels == labels[0]).all(axis=0)
    sure = np.take_along_axis(shares, labels[0][None, :, None], axis=2)[..., 0].min(axis=0)
    usable = agree & (sure >= how.threshold)
    counts = np.bincount(labels[0][usable], minlength=shares.shape[2])
    if not counts.any():
        return np.zeros(0, dtype=np.int64), labels[0], float(agree.mean())
    most = int(how.balance * counts[counts > 0].min())
    kept = []
    for label in np.flatnonzero(counts):
        own = np.flatnonzero(usable & (labels[0] == label))
        kept.append(own[np.argsort(-sure[own], kind="stable")][:most])
    return np.concatenate(kept), labels[0], float(agree.mean())


def _shares(
    speaker: LanguageModel, wording: PromptRenderer, asked: Sequence[Question]
) -> np.ndarray:
    """(N, C) label probabilities."""
    answers = speaker.answer_ids(speaker.question(wording, ""), wording.answers)

    def encode(questions: Sequence[Question]) -> list[list[int]]:
        return speaker.encode([speaker.question(wording, q.text, q.demos) for q in questions])

    prompts, _ = fitted(encode, asked, speaker.limit - max(len(ids) for ids in answers))
    scores = speaker.likelihoods(prompts, answers)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return found


def _finish(work: Path, best: int, rounds: Sequence[Round], out: Path) -> None:
    rows = [
        {"round": r.number, "macro_f1": r.macro_f1, "kept": r.better, "agreed": r.agreed, **r.kept}
        for r in rounds
    ]
    try:
        pd.DataFrame(rows).to_csv(work / str(best) / "rounds.csv", index=False)
        shutil.rmtree(out, ignore_errors=True)
        (work / str(best)).replace(out)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise RunError(f"Cannot write {out}: {error.strerror or error}") from None
