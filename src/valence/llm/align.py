"""Adaptive self-alignment: self-training on a model's own confident answers to unlabeled texts.

A text is selected where the answers under several sets of retrieved demonstrations agree and
all are confident; no label may have many more selected texts than the rarest. How many sets and
how confident, every language's own validation rows say. After every round the validation score
decides whether the training continues.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from valence.config.callbacks import ProgressCallback, part_of
from valence.data.dataset import Split
from valence.data.examples import Examples
from valence.distributed import process_group
from valence.evaluation.task import softmax
from valence.llm.backends import encode_truncated
from valence.llm.finetune import finetune
from valence.llm.finetune_spec import ABOUT, FineTuneResult, FinetuneSpec, read_finetune_result
from valence.llm.language_model import LanguageModel
from valence.llm.prompts import Demo, Question
from valence.llm.pseudo_labels import (
    AlignSpec,
    AnswerLimits,
    agreement,
    language_limits,
    select_confident,
)
from valence.llm.records import Example, with_demos
from valence.llm.resident import open_language_model
from valence.llm.retrieval import Embedder, Retriever
from valence.llm.sft_data import SFTData, by_language, stratified_sample
from valence.storage import atomic, cache

LANGUAGE = "language"
ROUNDS = "rounds.csv"


@dataclass(frozen=True)
class Round:
    """The outcome of a round.

    Attributes:
        number: 0 for the training on labeled texts alone.
        selected: Number of pseudo-labeled texts, by label name.
        agreement: Fraction of the unlabeled texts whose answers agree under all sets.
        macro_f1: On validation, after it.
        improved: Whether its adapter replaced the one before.
        limits: What answers had to meet, by language.
    """

    number: int
    selected: dict[str, int]
    agreement: float
    macro_f1: float
    improved: bool
    limits: dict[str, AnswerLimits] = field(default_factory=dict)


@dataclass(frozen=True)
class PseudoLabels:
    """Answers that became labels.

    Attributes:
        examples: Questions with the model's own labels.
        agreement: Fraction of the texts whose answers agree.
        limits: What answers had to meet, by language.
    """

    examples: list[Example]
    agreement: float
    limits: dict[str, AnswerLimits]


def self_align(
    spec: FinetuneSpec,
    align_spec: AlignSpec,
    sft_data: SFTData,
    texts: Examples,
    out: Path,
    *,
    embedder: Embedder,
    progress: ProgressCallback | None = None,
) -> tuple[FineTuneResult, list[Round]]:
    """Fine-tune on labeled texts, then on the model's own answers while validation improves.

    Stopped, it goes on where it was: rounds that ended are read again.

    Args:
        spec: How every round is trained.
        align_spec: How answers are selected.
        sft_data: Labeled questions, also the source of demonstrations.
        texts: Unlabeled texts of the target, with their languages as groups where these are known.
        out: Folder of the adapter; ``rounds.csv`` is added to what ``finetune`` writes.
        embedder: Computes the vectors by which demonstrations are retrieved.
        progress: Called with the fraction done and a message.

    Raises:
        DataError, ModelError, SpecError, RunError: as ``finetune``.
    """
    process_group.require_single_process(
        "Self-alignment", "start it without a launcher, or without the texts"
    )
    atomic.refuse_foreign(out, ABOUT)
    rounds_of = _Rounds(spec, align_spec, sft_data, texts, out, embedder, progress)
    result = rounds_of.trained(0, sft_data, None)
    best = 0
    rounds = [Round(0, {}, 0.0, _macro_f1(result), improved=True)]
    classes = sft_data.renderer.classes
    for number in range(1, align_spec.rounds + 1):
        own = rounds_of.pseudo_labels(number, best)
        selected = {name: sum(classes[e.label] == name for e in own.examples) for name in classes}
        best_score = rounds[best].macro_f1
        if not own.examples:
            rounds.append(Round(number, selected, own.agreement, best_score, False, own.limits))
            break
        extended = SFTData(sft_data.data, sft_data.template, sft_data.renderer,
                           [*sft_data.train, *own.examples], sft_data.validation)  # fmt: skip
        candidate = rounds_of.trained(number, extended, best)
        value = _macro_f1(candidate)
        improved = value - best_score > align_spec.least_gain
        rounds.append(Round(number, selected, own.agreement, value, improved, own.limits))
        if not improved:
            break
        result, best = candidate, number
    rounds_of.publish(best, rounds)
    return result, rounds


def _macro_f1(result: FineTuneResult) -> float:
    value = result.validation["macro_f1"]
    assert value is not None, "a fine-tuning has validation questions"
    return value


class _Rounds:
    """The rounds of one self-alignment on disk, each of which is done once."""

    def __init__(
        self, spec: FinetuneSpec, align_spec: AlignSpec, sft_data: SFTData, texts: Examples,
        out: Path, embedder: Embedder, progress: ProgressCallback | None,
    ) -> None:  # fmt: skip
        self.spec, self.align_spec, self.sft_data, self.texts = spec, align_spec, sft_data, texts
        self.out, self.embedder, self.progress = out, embedder, progress
        self.work = out.with_name(f".{out.name}.rounds")
        groups = [] if texts.groups is None else [str(name) for name in texts.groups]
        rows = map(repr, (*sft_data.train, *sft_data.validation, *texts.texts, *groups))
        same = spec.model_copy(update={"device": "auto"})
        settings = align_spec.model_copy(update={"rounds": 1})  # more rounds go on from fewer
        self.key = cache.content_key(
            [same.model_dump_json(), settings.model_dump_json(), sft_data.template,
             embedder.key, *rows]
        )  # fmt: skip
        if not (self.work / self.key).exists():
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True)
            (self.work / self.key).touch()

    def trained(self, number: int, data: SFTData, start: int | None) -> FineTuneResult:
        """The training of a round; read again if it has ended."""
        folder = self.work / str(number)
        if (folder / ABOUT).exists():  # written last
            return read_finetune_result(folder)
        begun = None if start is None else self.work / str(start)
        rounds = self.align_spec.rounds + 1
        progress = part_of(self.progress, number / rounds, (number + 1) / rounds)
        return finetune(self.spec, data, folder, start=begun, progress=progress)

    def pseudo_labels(self, number: int, start: int) -> PseudoLabels:
        """The labels of a round, by the adapter of an earlier one; read again if they are there."""
        path = self.work / f"{number}.json"
        if path.exists():
            return _read(path)
        own = pseudo_label(
            self.spec, self.align_spec, self.sft_data, self.texts, self.work / str(start),
            embedder=self.embedder,
        )  # fmt: skip
        atomic.write_text(path, json.dumps(_plain(own), ensure_ascii=False))
        return own

    def publish(self, best: int, rounds: Sequence[Round]) -> None:
        """Move the best adapter to its place and clear the rest."""
        rows = [
            {
                "round": r.number, "macro_f1": r.macro_f1, "kept": r.improved,
                "agreed": r.agreement, **r.selected,
                **{f"{name or 'all'} sets": own.sets for name, own in r.limits.items()},
                **{f"{name or 'all'} threshold": own.threshold for name, own in r.limits.items()},
            }
            for r in rounds
        ]  # fmt: skip
        with atomic.new_file(self.work / str(best) / ROUNDS) as scratch:
            pd.DataFrame(rows).to_csv(scratch, index=False)
        atomic.publish_folder(self.work / str(best), self.out, marker=ABOUT)
        shutil.rmtree(self.work, ignore_errors=True)


def _plain(own: PseudoLabels) -> dict[str, object]:
    return {
        "agreement": own.agreement,
        "limits": {n: [v.sets, v.threshold, v.accuracy] for n, v in own.limits.items()},
        "examples": [
            [e.question.text, [[d.text, d.label] for d in e.question.demos], e.label, e.language]
            for e in own.examples
        ],
    }


def _read(path: Path) -> PseudoLabels:
    values = json.loads(path.read_text(encoding="utf-8"))
    examples = [
        Example(Question(text, tuple(Demo(t, c) for t, c in demos)), label, language)
        for text, demos, label, language in values["examples"]
    ]
    limits = {name: AnswerLimits(*numbers) for name, numbers in values["limits"].items()}
    return PseudoLabels(examples, values["agreement"], limits)


def pseudo_label(
    spec: FinetuneSpec, align_spec: AlignSpec, sft_data: SFTData, texts: Examples, adapter: Path, *,
    embedder: Embedder,
) -> PseudoLabels:  # fmt: skip
    """The confident, agreeing and balanced answers of an adapter, language by language.

    Raises:
        DataError: if a language of the texts has no training records and demonstrations are to be
            of the text's own.
    """
    validation = stratified_sample(sft_data.validation, spec.validation_rows, seed=spec.seed)
    languages = _languages(texts, sft_data)
    queries = Examples(
        [*(e.question.text for e in validation), *texts.texts],
        groups=np.array([*(e.language for e in validation), *languages], dtype=object),
    )
    questions = _questions(align_spec, sft_data, queries, embedder)
    model = open_language_model(
        str(adapter), quantization=spec.quantization, device=spec.device, max_length=spec.cutoff
    )
    try:
        probs = np.stack([_label_probs(model, sft_data, own) for own in questions])
    finally:
        model.close()
    trained = by_language(sft_data.train)
    count = len(validation)
    truth = np.array([e.label for e in validation], dtype=np.int64)
    owners = by_language(validation)
    examples: list[Example] = []
    limits: dict[str, AnswerLimits] = {}
    for name in dict.fromkeys(languages):
        # A language without validation rows of its own goes by those of all.
        judged = owners.get(name, np.arange(count))
        limits[name] = language_limits(align_spec, probs[:, judged], truth[judged])
        rows = count + np.flatnonzero(np.array(languages, dtype=object) == name)
        own_train = trained.get(name, np.arange(len(sft_data.train)))
        known = sorted({sft_data.train[i].label for i in own_train})
        chosen = rows[select_confident(
            probs[:, rows], limits[name], balance=align_spec.balance, labels=known,
            missing=align_spec.missing,
        )]  # fmt: skip
        labels = probs[0, chosen].argmax(axis=1)
        examples += [
            Example(questions[0][i], int(label), name)
            for i, label in zip(chosen, labels, strict=True)
        ]
    agrees = agreement(probs[:, count:], align_spec.sets or 2)[1]
    return PseudoLabels(examples, float(agrees.mean()), limits)


def _languages(texts: Examples, sft_data: SFTData) -> list[str]:
    """The language of every text: its own, or that of the records where there is one alone."""
    if texts.groups is not None:
        return [str(name) for name in texts.groups]
    own = list(by_language(sft_data.train))
    return [own[0] if len(own) == 1 else ""] * len(texts)


def _questions(
    align_spec: AlignSpec, sft_data: SFTData, queries: Examples, embedder: Embedder
) -> list[list[Question]]:
    """The texts with their nearest, second nearest … demonstrations of each label."""
    train = sft_data.train
    pool = Split(
        [e.question.text for e in train], np.array([e.label for e in train], dtype=np.int64),
        np.arange(len(train)).astype(str),
        pd.DataFrame({LANGUAGE: [e.language for e in train]}),
    )  # fmt: skip
    renderer = sft_data.renderer
    within = align_spec.pool == "language" and queries.groups is not None and all(queries.groups)
    retriever = Retriever(embedder, pool, len(renderer.classes), group=LANGUAGE if within else None)
    rows = retriever.find(queries, align_spec.most_sets)
    questions = []
    for rank in range(align_spec.most_sets):
        demos = with_demos(renderer, pool, rows[:, :, rank : rank + 1])
        questions.append([Question(t, d) for t, d in zip(queries.texts, demos, strict=True)])
    return questions


def _label_probs(
    model: LanguageModel, sft_data: SFTData, questions: Sequence[Question]
) -> np.ndarray:
    """(N, C) label probabilities."""
    renderer = sft_data.renderer
    answers = model.answer_ids(model.format_prompt(renderer, ""), renderer.answers)

    def encode(batch: Sequence[Question]) -> list[list[int]]:
        return model.encode([model.format_prompt(renderer, q.text, q.demos) for q in batch])

    room = model.limit - max(len(ids) for ids in answers)
    prompts, _ = encode_truncated(encode, questions, room, setting="cutoff")
    return softmax(model.likelihoods(prompts, answers))
