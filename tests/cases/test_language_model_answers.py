"""Answers of language models as servers and models give them: read right, or said to be none."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from valence.llm.answers import Answers, named_labels, one_hot, parse_answer, token_logits
from valence.llm.prompts import make_renderer


def read(raw: str, *classes: str) -> str | None:
    """The label that an answer names."""
    label = parse_answer(raw, make_renderer("self-alignment", classes))
    return None if label is None else classes[label]


JAPANESE = ("肯定的", "否定的")
THAI = ("บวก", "ลบ")


@pytest.mark.parametrize(
    ("raw", "classes", "label"),
    [
        ("この文は肯定的です。", JAPANESE, "肯定的"),
        ("この文は否定的です。", JAPANESE, "否定的"),
        ("答案：积极", ("积极", "消极"), "积极"),
        ("ข้อความนี้เป็นบวกครับ", THAI, "บวก"),
        ("यह सकारात्मक है", ("सकारात्मक", "नकारात्मक"), "सकारात्मक"),
        ("नकारात्मकता", ("सकारात्मक", "नकारात्मक"), None),
    ],
)
def test_scripts_without_spaces_have_no_word_boundaries(
    raw: str, classes: tuple[str, ...], label: str | None
) -> None:
    assert read(raw, *classes) == label


@pytest.mark.parametrize(
    ("raw", "label"),
    [("\u22121", "-1"), ("-1", "-1"), ("1", "1"), ("\uff0d1", "-1"), ("0", "0"), ("10", None),
     ("The answer: \u22121.", "-1"), ("\uff11", "1")],
)  # fmt: skip
def test_a_minus_of_unicode_is_a_minus(raw: str, label: str | None) -> None:
    assert read(raw, "-1", "0", "1") == label


@pytest.mark.parametrize(
    ("raw", "label"),
    [("very good", "very_good"), ("Very-Good", "very_good"), ("VERY_GOOD!", "very_good"),
     ("good", "good"), ("very\u2013good", "very_good"), ("very\u00a0good", "very_good"),
     ("goodness", None)],
)  # fmt: skip
def test_underscores_dashes_and_spaces_are_one(raw: str, label: str | None) -> None:
    assert read(raw, "good", "very_good") == label


@pytest.mark.parametrize(
    ("raw", "classes", "label"),
    [
        (unicodedata.normalize("NFD", "négatif"), ("positif", "négatif"), "négatif"),
        ("NÉGATIF", ("positif", unicodedata.normalize("NFD", "négatif")), 1),
        ("pozıtıf", ("pozitif", "negatif"), "pozitif"),
        ("POZİTİF", ("pozitif", "negatif"), "pozitif"),
        ("GROSSARTIG", ("großartig", "schlecht"), "großartig"),
        ("ﬁne", ("fine", "bad"), "fine"),
    ],
)
def test_forms_of_unicode(raw: str, classes: tuple[str, ...], label: str | int) -> None:
    assert read(raw, *classes) == (classes[label] if isinstance(label, int) else label)


@pytest.mark.parametrize(
    ("raw", "label"),
    [("bad or good", None), ("It is not bad, it is good", None), ("**Good**", "good"),
     ('{"sentiment": "good"}', "good"), ("good. Yes, good!", "good"), ("", None)],
)  # fmt: skip
def test_two_labels_are_no_answer(raw: str, label: str | None) -> None:
    assert read(raw, "bad", "good") == label


def test_labels_that_differ_in_case_alone_stay_apart() -> None:
    assert read("Good", "good", "Good") == "Good"
    assert read("good", "good", "Good") == "good"


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("<think>It might be good", None),
        ("<think>bad? no</think>good", "good"),
        ("bad? rather not</think>\n\ngood", "good"),
        ("<Thinking>bad</Thinking> good", "good"),
        ("<think>a</think><think>good", None),
        ("I think good", "good"),
    ],
)
def test_a_thought_is_no_answer_and_an_open_one_none_at_all(raw: str, label: str | None) -> None:
    assert read(raw, "bad", "good") == label
    ids = make_renderer("options", ("bad", "good"))
    assert named_labels(raw.replace("good", "1").replace("bad", "0"), ids) == (
        () if label is None else (1,)
    )


def test_open_thoughts_are_counted_and_advised_on() -> None:
    answers = Answers(one_hot([None, 1], 2), ("<think>Let me", "good"))
    note = answers.summary()[-1]
    assert note.startswith("1 of these answers were cut off while the model was thinking")
    assert "llm.max_new_tokens" in note


def test_a_number_out_of_range_is_no_id() -> None:
    ids = make_renderer("options", ("bad", "good"))
    assert [parse_answer(raw, ids) for raw in ("10", "1", "-1", "\u22121", "1.5", "1.")] == [
        None, 1, None, None, None, 1
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "ids"),
    [("0 or 1", (0, 1)), ("not 0, it is 1", (0, 1)), ("1\n0: bad", (1,)), ("\n1", (1,)),
     ("1 (confidence 0.9)", (1,)), ("1, 100 %", (1,)), ("good", (1,)), ("bad or good", (0, 1)),
     ("**Good**", (1,)), ("neither", ()), ("7", ())],
)  # fmt: skip
def test_two_ids_are_no_answer_and_a_label_without_an_id_is_one(
    raw: str, ids: tuple[int, ...]
) -> None:
    renderer = make_renderer("options", ("bad", "good"))
    assert named_labels(raw, renderer) == ids
    assert parse_answer(raw, renderer) == (ids[0] if len(ids) == 1 else None)


def logs(**probs: float) -> dict[str, float]:
    return {token: float(np.log(prob)) for token, prob in probs.items()}


def test_probabilities_from_a_crumb_of_the_mass_are_none() -> None:
    renderer = make_renderer("self-alignment", ("negative", "neutral", "positive"))
    crumbs = logs(ne=0.95, neutral=0.02, positive=0.015, negative=0.001)
    assert token_logits(crumbs, 1, renderer) is None
    most = token_logits(logs(neutral=0.5, positive=0.2, ne=0.1), 1, renderer)
    assert most is not None
    assert most.argmax() == 1
