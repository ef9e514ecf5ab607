"""Adaptive self-alignment: self-training on a model's own confident answers to unlabeled texts.

A text is selected where the answers under several sets of retrieved demonstrations agree and
all are confident; no label may have many more selected texts than the rarest. After every
round the validation score decides whether the training continues.
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
from valence.llm.classify import encode_truncated
from valence.llm.finetune import finetune
from valence.llm.finetune_spec import ABOUT, FineTuneResult, FinetuneSpec
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_language_model
from valence.llm.prompts import PromptRenderer, Question
from valence.llm.records import Example, with_demos
from valence.llm.retrieval import Embedder, Retriever
from valence.llm.sft_data import SFTData
from valence.storage import atomic

Count = Annotated[int, Field(ge=1)]


class AlignSpec(BaseModel):
    """How pseudo-labels are selected, and when self-alignment stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Count = 3
    sets: Annotated[int, Field(ge=2)] = 2
    """Sets of demonstrations that must lead to one answer: the nearest, the second nearest …"""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Least probability of the answer, in every set."""
    balance: Annotated[float, Field(ge=1)] = 2.0
    """Most selected texts of a label, as a multiple of the rarest label that has some."""
    least_gain: float = 0.0
    """Of validation macro-F1; a round that gains no more is discarded, and ends the training."""


@dataclass(frozen=True)
class Round:
    """The outcome of a round.

    Attributes:
        number: 0 for the training on labeled texts alone.
        selected: Number of pseudo-labeled texts, by label name.
        agreement: Fraction of the unlabeled texts whose answers agree under all sets.
        macro_f1: On validation, after it.
        improved: Whether its adapter replaced the one before.
    """

    number: int
    selected: dict[str, int]
    agreement: float
    macro_f1: float
    improved: bool


def self_align(
    spec: FinetuneSpec,
    align_spec: AlignSpec,
    sft_data: SFTData,
    texts: Sequence[str],
    out: Path,
    *,
    embedder: Embedder,
    progress: ProgressCallback | None = None,
) -> tuple[FineTuneResult, list[Round]]:
    """Fine-tune on labeled texts, then on the model's own answers while validation improves.

    Args:
        spec: How every round is trained.
        align_spec: How answers are selected.
        sft_data: Labeled questions, also the source of demonstrations.
        texts: Unlabeled texts of the target.
        out: Folder of the adapter; ``rounds.csv`` is added to what ``finetune`` writes.
        embedder: Computes the vectors by which demonstrations are retrieved.
        progress: Called with the fraction done and a message.

    Raises:
        DataError, ModelError, SpecError, RunError: as ``finetune``.
    """
    process_group.require_single_process(
        "Self-alignment", "start it without a launcher, or leave out the texts"
    )
    atomic.refuse_foreign(out, ABOUT)
    work = out.with_name(f".{out.name}.rounds")
    result = finetune(spec, sft_data, work / "0", progress=progress)
    best = 0
    rounds = [Round(0, {}, 0.0, _macro_f1(result), improved=True)]
    for number in range(1, align_spec.rounds + 1):
        start = work / str(best)
        examples, agreement = pseudo_label(
            spec, align_spec, sft_data, texts, start, embedder=embedder
        )
        selected = {name: sum(sft_data.renderer.classes[e.label] == name for e in examples)
                    for name in sft_data.renderer.classes}  # fmt: skip
        if not examples:
            best_score = rounds[best].macro_f1
            rounds.append(Round(number, selected, agreement, best_score, improved=False))
            break
        extended = SFTData(sft_data.data, sft_data.template, sft_data.renderer,
                           [*sft_data.train, *examples], sft_data.validation)  # fmt: skip
        candidate = finetune(spec, extended, work / str(number), start=start, progress=progress)
        value = _macro_f1(candidate)
        improved = value - rounds[best].macro_f1 > align_spec.least_gain
        rounds.append(Round(number, selected, agreement, value, improved))
        if not improved:
            break
        result, best = candidate, number
    _finish(work, best, rounds, out)
    return result, rounds


def _macro_f1(result: FineTuneResult) -> float:
    value = result.validation["macro_f1"]
    assert value is not None, "a fine-tuning has validation questions"
    return value


def pseudo_label(
    spec: FinetuneSpec, align_spec: AlignSpec, sft_data: SFTData, texts: Sequence[str],
    adapter: Path, *, embedder: Embedder,
) -> tuple[list[Example], float]:  # fmt: skip
    """Examples with confident, agreeing and balanced answers; the fraction that agrees."""
    pool = Split(
        [e.question.text for e in sft_data.train],
        np.array([e.label for e in sft_data.train], dtype=np.int64),
        np.arange(len(sft_data.train)).astype(str),
    )
    renderer = sft_data.renderer
    retriever = Retriever(embedder, pool, len(renderer.classes))
    nearest_rows = retriever.find(Examples(texts), align_spec.sets)
    model = load_language_model(
        str(adapter), quantization=spec.quantization, device=spec.device, max_length=spec.cutoff
    )
    probs = []
    for rank in range(align_spec.sets):
        demos = with_demos(renderer, pool, nearest_rows[:, :, rank : rank + 1])
        questions = [Question(text, own) for text, own in zip(texts, demos, strict=True)]
        probs.append(_label_probs(model, renderer, questions))
        if rank == 0:
            nearest = questions
    selected, labels, agreement = select_confident(np.stack(probs), align_spec)
    return [Example(nearest[i], int(labels[i])) for i in selected], agreement


def select_confident(
    probs: np.ndarray, align_spec: AlignSpec
) -> tuple[np.ndarray, np.ndarray, float]:
    """Select texts by agreement, confidence and balance of labels.

    Args:
        probs: (S, N, C) label probabilities under S sets of demonstrations.
        align_spec: The limits.

    Returns:
        Selected rows, the most confident first within a label; (N,) labels of all rows; the
        fraction of rows on whose label all sets agree.
    """
    labels = probs.argmax(axis=2)
    agrees = (labels == labels[0]).all(axis=0)
    confidence = np.take_along_axis(probs, labels[0][None, :, None], axis=2)[..., 0].min(axis=0)
    usable = agrees & (confidence >= align_spec.threshold)
    counts = np.bincount(labels[0][usable], minlength=probs.shape[2])
    if not counts.any():
        return np.zeros(0, dtype=np.int64), labels[0], float(agrees.mean())
    most = int(align_spec.balance * counts[counts > 0].min())
    selected = []
    for label in np.flatnonzero(counts):
        own = np.flatnonzero(usable & (labels[0] == label))
        selected.append(own[np.argsort(-confidence[own], kind="stable")][:most])
    return np.concatenate(selected), labels[0], float(agrees.mean())


def _label_probs(
    model: LanguageModel, renderer: PromptRenderer, questions: Sequence[Question]
) -> np.ndarray:
    """(N, C) label probabilities."""
    answers = model.answer_ids(model.format_prompt(renderer, ""), renderer.answers)

    def encode(batch: Sequence[Question]) -> list[list[int]]:
        return model.encode([model.format_prompt(renderer, q.text, q.demos) for q in batch])

    prompts, _ = encode_truncated(encode, questions, model.limit - max(len(ids) for ids in answers))
    scores = model.likelihoods(prompts, answers)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return probs


def _finish(work: Path, best: int, rounds: Sequence[Round], out: Path) -> None:
    rows = [
        {
            "round": r.number,
            "macro_f1": r.macro_f1,
            "kept": r.improved,
            "agreed": r.agreement,
            **r.selected,
        }
        for r in rounds
    ]
    with atomic.new_file(work / str(best) / "rounds.csv") as scratch:
        pd.DataFrame(rows).to_csv(scratch, index=False)
    atomic.publish_folder(work / str(best), out, marker=ABOUT)
    shutil.rmtree(work, ignore_errors=True)
