from __future__ import annotations

import json
from pathlib import Path

import pytest

from valence.errors import SpecError, UnknownNameError
from valence.llm.answers import parse_answer
from valence.llm.prompts import Demo, make_renderer
from valence.llm.records import InstructionRecord

FOUR = ("ambivalent", "negative", "neutral", "positive")


def test_records_are_the_golden_ones_byte_for_byte(golden: Path) -> None:
    renderer = make_renderer("self-alignment", FOUR)
    lines = (golden / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        row = json.loads(line)
        named = {demo["label"]: demo["text"] for demo in row["demonstrations"]}
        demos = tuple(Demo(named[FOUR[c]], c) for c in renderer.demo_classes)
        made = InstructionRecord(row["record"]["input"], demos, row["record"]["output"]).alpaca(
            renderer
        )
        assert json.dumps(made) == json.dumps(row["record"])


def test_other_labels_keep_their_own_order() -> None:
    renderer = make_renderer("self-alignment", ("bad", "good"))
    assert "is bad or good in terms" in renderer.instruction()
    assert renderer.demo_classes == (0, 1)


def test_options_are_numbered_and_braces_in_texts_stay() -> None:
    renderer = make_renderer("options", ("bad", "good"))
    asked = renderer.user("{answer} {text}", [Demo("{options}", 1)])
    assert "0: bad\n1: good" in asked
    assert "Text: {answer} {text}\n" in asked
    assert "Text: {options}\n" in asked
    assert "Answer: 1\n" in asked
    assert renderer.answers == ("0", "1")


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        'head: "Good or bad? "\nexample: "{text} -> {answer}"\nquery: "{text} ->"\n'
        "system: You judge.\n"
    )
    renderer = make_renderer(str(path), ("bad", "good"))
    assert renderer.user("so so", [Demo("fine", 1)]) == "Good or bad? fine -> good\nso so ->"
    assert renderer.messages("x")[0] == {"role": "system", "content": "You judge."}
    with pytest.raises(SpecError, match="Label 'meh' is not in the template"):
        make_renderer(str(path), ("bad", "good", "meh"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('head: ""\nexample: "{text}"\nquery: "{text}"\n', "example must hold {answer}"),
        ('head: ""\nexample: "{text}{answer}"\nquery: ""\n', "query must hold {text}"),
        ('head: "{lables}"\nexample: "{text}{answer}"\nquery: "{text}"\n', "did you mean 'labels'"),
        ("head: [", "not valid YAML"),
        ("head: a\n", "example"),
    ],
)
def test_templates_with_faults(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=told):
        make_renderer(str(path), ("bad", "good"))


def test_unknown_template() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'options'"):
        make_renderer("option", ("bad", "good"))
    with pytest.raises(SpecError, match="cannot be read"):
        make_renderer("missing.yaml", ("bad", "good"))


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("positive", 3),
        (" Negative.", 1),
        ("It is neutral, not positive", None),
        ("nonpositive", None),
        ("", None),
        ("2", None),
    ],
)
def test_labels_are_read_as_words(raw: str, label: int | None) -> None:
    assert parse_answer(raw, make_renderer("self-alignment", FOUR)) == label


def test_of_two_labels_that_begin_together_the_longer_counts() -> None:
    renderer = make_renderer("self-alignment", ("good", "good enough"))
    assert parse_answer("good enough!", renderer) == 1
    assert parse_answer("very good", renderer) == 0


@pytest.mark.parametrize(("raw", "label"), [("1", 1), ("id: 0.", 0), ("7", None), ("good", 1)])
def test_ids_are_a_number_or_a_label(raw: str, label: int | None) -> None:
    assert parse_answer(raw, make_renderer("options", ("bad", "good"))) == label
