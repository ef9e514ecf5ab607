"""Self-alignment: limits and balance per language, demonstrations of it, rounds that resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.causal import make_causal
from valence.config.sections import EncoderSpec
from valence.data.examples import Examples
from valence.errors import DataError
from valence.llm import align
from valence.llm.align import self_align
from valence.llm.finetune_spec import FinetuneSpec
from valence.llm.prompts import make_renderer
from valence.llm.pseudo_labels import AlignSpec, AnswerLimits, language_limits, select_confident
from valence.llm.records import Example, Question
from valence.llm.retrieval import Embedder
from valence.llm.sft_data import SFTData

CLASSES = ("negative", "neutral", "positive")


def random_probs(rows: int, sets: int = 2, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.dirichlet([0.2, 0.2, 0.05], size=(sets, rows)).astype(np.float32)


def test_own_answers_are_agreed_sure_and_balanced() -> None:
    probs = random_probs(400)
    rows = select_confident(probs, AnswerLimits(2, 0.6), balance=1.5, labels=range(3))
    labels = probs[0].argmax(1)
    assert (labels == probs[1].argmax(1))[rows].all()
    assert (np.take_along_axis(probs[:, rows], labels[rows][None, :, None], 2) >= 0.6).all()
    counts = np.bincount(labels[rows], minlength=3)
    assert counts.max() <= 1.5 * counts.min()
    none = select_confident(
        np.full((2, 4, 3), 1 / 3, np.float32), AnswerLimits(2, 0.6), balance=2, labels=range(3)
    )
    assert not len(none)


def test_a_label_without_a_sure_answer_does_not_escape_the_balance() -> None:
    probs = np.zeros((2, 60, 3), np.float32)
    probs[:, :50, 0] = probs[:, 50:, 1] = 0.9
    probs += 0.05
    ask = {"limits": AnswerLimits(2, 0.8), "balance": 2.0, "labels": range(3)}

    def counts(**settings: Any) -> list[int]:
        rows = select_confident(probs, **{**ask, **settings})
        return np.bincount(probs[0, rows].argmax(1), minlength=3).tolist()

    assert counts() == [2, 2, 0], "the third label counts as one text"
    assert counts(missing="ignored") == [20, 10, 0]
    assert counts(labels=(0, 1)) == [20, 10, 0], "a label without training records does not count"


def _answers(truth: np.ndarray, right: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(1, N, 3) probabilities of answers that are right or wrong, and so sure."""
    probs = np.repeat(((1 - confidence) / 2)[:, None], 3, axis=1)
    answers = np.where(right, truth, (truth + 1) % 3)
    probs[np.arange(len(truth)), answers] = confidence
    return probs[None].astype(np.float32)


def test_thresholds_come_from_the_validation_rows_of_the_language() -> None:
    truth = np.arange(40) % 3
    confidence = np.linspace(0.5, 0.99, 40)
    good = _answers(truth, confidence > 0.6, confidence)  # wrong only where it is unsure
    poor = _answers(truth, confidence > 0.9, confidence)
    limits = [
        language_limits(AlignSpec(accuracy=0.9), np.repeat(probs, 3, axis=0), truth)
        for probs in (good, poor)
    ]
    assert limits[0].threshold < 0.65 < limits[1].threshold
    assert all((own.accuracy or 0) >= 0.9 for own in limits)
    hopeless = _answers(truth, np.zeros(40, bool), confidence)
    taken = language_limits(AlignSpec(), np.repeat(hopeless, 3, axis=0), truth)
    assert taken.none_taken
    fixed = language_limits(AlignSpec(threshold=0.8, sets=2), good.repeat(2, axis=0), truth)
    assert fixed == AnswerLimits(2, 0.8), "the settings of before"


def test_as_many_sets_as_the_language_needs() -> None:
    truth = np.arange(40) % 3
    first = _answers(truth, np.arange(40) % 2 == 0, np.full(40, 0.9))
    # the third set agrees with the right answers alone
    third = np.where((np.arange(40) % 2 == 0)[None, :, None], first, np.roll(first, 1, axis=2))
    probs = np.concatenate([first, first, third])
    assert language_limits(AlignSpec(), probs, truth).sets == 3
    assert language_limits(AlignSpec(sets=2), probs, truth).none_taken
    sure = _answers(truth, np.ones(40, bool), np.full(40, 0.9))
    assert language_limits(AlignSpec(), np.concatenate([sure, sure, third]), truth).sets == 2


@pytest.fixture
def embedder(tiny_encoder: Path) -> Embedder:
    return Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu")


def _rows(language: str, count: int) -> list[Example]:
    words = ("bad film", "a film", "good film")
    return [Example(Question(f"{words[i % 3]} {i}"), i % 3, language) for i in range(count)]


@pytest.fixture
def data() -> SFTData:
    renderer = make_renderer("self-alignment", CLASSES)
    return SFTData("two", "self-alignment", renderer, [*_rows("de", 12), *_rows("en", 12)],
                   [*_rows("de", 6), *_rows("en", 6)])  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path) -> FinetuneSpec:
    folder = make_causal(tmp_path / "causal")
    return FinetuneSpec(model=str(folder), max_steps=1, accumulation=1, device="cpu")


TEXTS = Examples(
    ["bad film", "good film", "a film", "bad plot"],
    groups=np.array(["de", "en", "de", "en"], dtype=object),
)


def test_demonstrations_are_of_the_language_of_the_text(data: SFTData, embedder: Embedder) -> None:
    marked = [
        Example(Question(f"{e.question.text} {e.language}"), e.label, e.language)
        for e in data.train
    ]
    data = SFTData(data.data, data.template, data.renderer, marked, data.validation)
    for sets in align._questions(AlignSpec(sets=2), data, TEXTS, embedder):
        for question, language in zip(sets, TEXTS.groups, strict=True):  # type: ignore[arg-type]
            assert len(question.demos) == 3
            assert all(demo.text.endswith(f" {language}") for demo in question.demos)
    any_language = align._questions(AlignSpec(sets=2, pool="all"), data, TEXTS, embedder)
    assert "de" in {demo.text[-2:] for demo in any_language[0][1].demos}, "of an English text"
    foreign = Examples(["film"], groups=np.array(["pl"], dtype=object))
    with pytest.raises(DataError, match="'pl' has no training rows"):
        align._questions(AlignSpec(), data, foreign, embedder)


def test_rounds_record_the_limits_of_every_language(
    data: SFTData, spec: FinetuneSpec, embedder: Embedder, tmp_path: Path
) -> None:
    how = AlignSpec(rounds=1, accuracy=0.01)
    _, rounds = self_align(spec, how, data, TEXTS, tmp_path / "out", embedder=embedder)
    assert set(rounds[1].limits) == {"de", "en"}
    table = pd.read_csv(tmp_path / "out/rounds.csv")
    assert {"de sets", "de threshold", "en sets", "en threshold"} <= set(table.columns)


def test_an_interrupted_round_is_the_only_one_that_is_done_again(
    data: SFTData, spec: FinetuneSpec, embedder: Embedder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    how = AlignSpec(rounds=1, threshold=0.34, sets=2, missing="ignored")
    trained: list[str] = []
    asked: list[int] = []
    original_train, original_ask = align.finetune, align.pseudo_label
    stop = True

    def train(spec: FinetuneSpec, rows: SFTData, out: Path, **more: Any) -> Any:
        if stop and out.name == "1":
            raise KeyboardInterrupt
        trained.append(out.name)
        return original_train(spec, rows, out, **more)

    def ask(*given: Any, **more: Any) -> Any:
        asked.append(1)
        return original_ask(*given, **more)

    monkeypatch.setattr(align, "finetune", train)
    monkeypatch.setattr(align, "pseudo_label", ask)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        self_align(spec, how, data, TEXTS, out, embedder=embedder)
    assert (trained, asked) == (["0"], [1])
    stop = False
    _, rounds = self_align(spec, how, data, TEXTS, out, embedder=embedder)
    assert (trained, asked) == (["0", "1"], [1]), "neither trained nor asked again"
    assert len(rounds) == 2
    assert not list(tmp_path.glob(".out*"))
    other = Examples([*TEXTS.texts[:3], "another"], groups=TEXTS.groups)
    self_align(spec, how, data, other, tmp_path / "out", embedder=embedder)
    assert trained == ["0", "1", "0", "1"], "other texts are another alignment"
