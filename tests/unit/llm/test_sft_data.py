"""Validation records are of every language and label, and are reported by language."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.causal import make_causal
from valence.errors import SpecError
from valence.llm.finetune import finetune, finetune_format
from valence.llm.finetune_spec import FinetuneSpec
from valence.llm.local import load_language_model
from valence.llm.merge import MergeCheck, merge
from valence.llm.prompts import Demo, Question, make_renderer
from valence.llm.records import Example
from valence.llm.sft_data import SFTData, by_language, strata, stratified_sample
from valence.llm.sft_session import FineTuneSession

CLASSES = ("negative", "neutral", "positive")
WORDS = ("bad film", "a film", "good film")


def examples(counts: dict[str, tuple[int, ...]]) -> list[Example]:
    """Records language after language, as they are read; so many of every label."""
    return [
        Example(Question(f"{WORDS[label]} {language} {i}", (Demo("bad", 0),)), label, language)
        for language, own in counts.items()
        for label, count in enumerate(own) for i in range(count)
    ]  # fmt: skip


def pairs(chosen: list[Example]) -> Counter[tuple[str, int]]:
    return Counter((one.language, one.label) for one in chosen)


def test_a_sample_has_every_language_and_label_in_proportion() -> None:
    rows = examples({"de": (200, 100, 100), "en": (40, 40, 20), "pl": (2, 1, 1)})
    chosen = stratified_sample(rows, 60, seed=1)
    assert len(chosen) == 60
    counts = pairs(chosen)
    assert len(counts) == 9, "none is left out"
    assert counts["de", 0] > 3 * counts["en", 0] > 3 * counts["pl", 0]
    assert [rows.index(one) for one in chosen] == sorted(rows.index(one) for one in chosen)
    assert stratified_sample(rows, 60, seed=1) == chosen
    assert stratified_sample(rows, 10_000, seed=1) == rows
    assert len(pairs(stratified_sample(rows, 5, seed=1))) == 5


def test_strata_and_languages() -> None:
    rows = examples({"de": (2, 1, 0), "en": (1, 0, 0)})
    assert strata(rows).tolist() == [0, 0, 1, 2]
    assert {name: own.tolist() for name, own in by_language(rows).items()} == {
        "de": [0, 1, 2], "en": [3]
    }  # fmt: skip


@pytest.fixture
def causal(tmp_path: Path) -> Path:
    return make_causal(tmp_path / "causal")


@pytest.fixture
def data() -> SFTData:
    renderer = make_renderer("self-alignment", CLASSES)
    train = examples({"de": (4, 4, 4), "en": (4, 4, 4)})
    return SFTData("two", "self-alignment", renderer, train,
                   examples({"de": (10, 10, 10), "en": (5, 5, 5)}))  # fmt: skip


def settings(causal: Path, **changes: object) -> FinetuneSpec:
    values = {"model": str(causal), "max_steps": 1, "accumulation": 1, "device": "cpu", **changes}
    return FinetuneSpec.model_validate(values)


def test_epochs_and_checks_are_judged_on_all_languages(
    causal: Path, data: SFTData, tmp_path: Path
) -> None:
    spec = settings(causal, validation_rows=12)
    model = load_language_model(str(causal), device="cpu")
    session = FineTuneSession(spec, data, model, tmp_path, None)
    assert sum(pairs(session.eval_examples).values()) == 12
    assert len(pairs(session.eval_examples)) == 6, "every language and label"
    assert len(session.check_texts) == 8
    assert any(" en " in text for text in session.check_texts)
    result = finetune(spec, data, tmp_path / "adapter")
    assert set(result.validation_by_language) == {"de", "en"}
    assert all(s["macro_f1"] is not None for s in result.validation_by_language.values())
    assert any("12 of 45 validation records are scored" in note for note in result.notes)
    lines = (tmp_path / "adapter/history.jsonl").read_text().split("\n")
    scored = [json.loads(line) for line in lines if "validation/macro_f1" in line]
    assert {"validation/de/macro_f1", "validation/en/macro_f1"} <= set(scored[0])


def test_the_number_format_of_a_training_is_recorded_and_its_gap_told(
    causal: Path, data: SFTData, tmp_path: Path
) -> None:
    result = finetune(settings(causal), data, tmp_path / "adapter")
    assert result.weight_format == "fp32"
    assert "the language model's weights are fp32 on cpu" in result.notes
    probs = np.array(result.check_probs)
    assert probs.shape == (8, 3)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    # as a training on 4-bit weights would have left it
    other = np.roll(probs, 1, axis=1)
    path = tmp_path / "adapter/finetune.json"
    changed = result.model_copy(
        update={"weight_format": "nf4", "check_probs": tuple(map(tuple, other.tolist()))}
    )
    path.write_text(changed.model_dump_json(), encoding="utf-8")
    checked = merge(tmp_path / "adapter", tmp_path / "merged", device="cpu")
    assert checked.gap < 1e-4
    assert checked.trained_gap == pytest.approx(np.abs(other - probs).max(), abs=1e-4)
    assert checked.changed == 8
    assert checked.lines()[1].startswith(
        "From the training (nf4 weights) to the merged model (fp32)"
    )
    assert checked.lines()[1].endswith("8 of 8 check questions get another label")


def test_adapters_of_older_versions_have_no_recorded_probabilities() -> None:
    assert len(MergeCheck(1e-6, None, "", "fp32", 0, 8).lines()) == 1


def test_advice_names_the_settings_of_fine_tuning(
    causal: Path, data: SFTData, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="set quantization=none"):
        finetune_format(settings(causal, quantization="nf4"), "cpu")
    with pytest.raises(SpecError, match="raise cutoff, use fewer"):
        finetune(settings(causal, cutoff=16), data, tmp_path / "short")
