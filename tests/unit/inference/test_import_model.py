"""Classifiers of other tools: the same probabilities here, under every verb."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.architectures import SIZES, save_classifier, save_word_tokenizer
from tests.conftest import make_reviews
from valence.cli import app
from valence.errors import ModelError, RunError, SpecError
from valence.inference.import_model import import_model
from valence.inference.predictor import Predictor

KINDS = ("bert", "distilbert", "modernbert", "xlm-roberta", "qwen3")
LABELS = ("negative", "neutral", "positive")
TEXTS = [*make_reviews(20, seed=4)["text"], "good", "the film was " * 40]


def some(kind: str) -> list[Any]:
    """All kinds; only one of them in short runs."""
    return [pytest.param(one, marks=() if one == kind else pytest.mark.slow) for one in KINDS]


def piped(folder: Path, labels: tuple[str, ...] = LABELS) -> np.ndarray:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")
    rows = classify(TEXTS, top_k=None, truncation=True)
    return np.array([[{r["label"]: r["score"] for r in row}[n] for n in labels]
                     for row in rows])  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A foreign folder and the model made of it."""
    base = tmp_path_factory.mktemp(request.param)
    theirs = save_classifier(request.param, base / "theirs")
    import_model(theirs, base / "ours")
    return theirs, base / "ours"


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labeled") / "rows.csv"
    rows = make_reviews(140, seed=8)
    names = {"bad": "negative", "meh": "neutral", "good": "positive"}
    rows.assign(label=rows["label"].map(names)).to_csv(path, index=False)
    return path


def changed(folder: Path, **values: object) -> None:
    """The folder with other values in its config; None takes one away."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({n: v for n, v in config.items() if v is not None}))


def valence(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_probabilities_are_those_of_the_pipeline(folders: tuple[Path, Path]) -> None:
    theirs, ours = folders
    expected = piped(theirs)
    predictor = Predictor(ours)
    np.testing.assert_allclose(predictor.predict_proba(TEXTS), expected, atol=1e-5)
    assert predictor.classes == LABELS
    assert predictor.truncated == 1
    np.testing.assert_allclose(piped(ours), expected, atol=1e-5, err_msg="still theirs to load")


@pytest.mark.parametrize("folders", some("bert"), indirect=True)
def test_every_verb_serves_it(folders: tuple[Path, Path], labeled: Path, tmp_path: Path) -> None:
    from tests.serving import serving

    ours = shutil.copytree(folders[1], tmp_path / "model")
    valence("predict", str(ours), str(labeled), "--out", str(tmp_path / "scored.csv"), "--quiet")
    with (tmp_path / "scored.csv").open() as stream:
        assert set(next(csv.DictReader(stream))) >= {"label", "prob_negative", "prob_positive"}
    scores = json.loads(valence("evaluate", str(ours), str(labeled), "--json", "--quiet"))
    assert scores["macro_f1"] is not None
    assert scores["head_f1"] is None, "how large its classes were is not known"
    told = valence("explain", str(ours), "the film was good", "--json", "--quiet")
    assert "integrated gradients" in told
    valence("audit", str(labeled), "--fast", "--quiet")
    plain = Predictor(ours).predict_proba(TEXTS)
    valence("export", str(ours), "--data", str(labeled), "--out", str(tmp_path / "onnx"), "--quiet")
    np.testing.assert_allclose(Predictor(tmp_path / "onnx").predict_proba(TEXTS), plain, atol=1e-4)
    with serving(ours) as running:
        answer = running.ask("/predict", {"inputs": TEXTS[0]}).json
    scores = {one["label"]: one["score"] for one in answer[0]}
    assert scores == pytest.approx(dict(zip(LABELS, plain[0], strict=True)), abs=1e-5)
    with pytest.raises(SpecError, match="unknown for this model; run valence calibrate"):
        Predictor(ours).calibration.with_target_prior(dict.fromkeys(LABELS, 1 / 3))
    valence("calibrate", str(ours), "--data", str(labeled), "--quiet")
    assert not np.allclose(Predictor(ours).predict_proba(TEXTS), plain, atol=1e-3)


REFUSED = {
    "several labels": {"problem_type": "multi_label_classification"},
    "predicts a number": {"problem_type": "regression"},
    "not a sequence classifier": {"architectures": ["BertModel"]},
    "code from its own folder": {"auto_map": {"AutoConfig": "evil.Config"}},
    "Valence models use a softmax": {"function_to_apply": "sigmoid"},
    "duplicate or empty label names": {"id2label": {"0": "a", "1": "a", "2": "b"}},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_classifier_of_one_label_is_refused(reason: str, tmp_path: Path) -> None:
    theirs = save_classifier("bert", tmp_path / "theirs")
    changed(theirs, **REFUSED[reason])
    with pytest.raises(ModelError, match=reason):
        import_model(theirs, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_weights_that_are_missing_or_pickled_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    theirs = save_classifier("bert", tmp_path / "theirs")
    weights = load_file(theirs / "model.safetensors")
    weights.pop("classifier.weight")
    save_file(weights, theirs / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for classifier\.weight; use a folder"):
        import_model(theirs, tmp_path / "ours")
    (theirs / "model.safetensors").rename(theirs / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors; other weights"):
        import_model(theirs, tmp_path / "ours")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="merge the adapter into its model first"):
        import_model(tmp_path / "adapter", tmp_path / "ours")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    good = save_classifier("bert", tmp_path / "good")
    with pytest.raises(RunError, match="is not empty"):
        import_model(good, tmp_path / "mine")
    with pytest.raises(ModelError, match="valence import-model"):
        Predictor(good)


def test_labels_without_names_are_said_and_given(tmp_path: Path) -> None:
    names = {i: f"LABEL_{i}" for i in range(3)}
    theirs = save_classifier(
        "bert", tmp_path / "theirs", id2label=names, label2id={n: i for i, n in names.items()}
    )
    done = import_model(theirs, tmp_path / "plain")
    assert done.notes == (
        "Its labels have no names; set them in their order: --labels name0,name1,name2",
    )
    words = ["import-model", str(theirs), "--out", str(tmp_path / "named"), "--labels", "no,so,yes"]
    told = json.loads(valence(*words, "--json"))
    assert told["classes"] == ["no", "so", "yes"]
    assert told["notes"] == []
    assert Predictor(tmp_path / "named").predict(TEXTS[:1])[0] in ("no", "so", "yes")
    with pytest.raises(ModelError, match="has 3 labels but --labels has 2"):
        import_model(theirs, tmp_path / "wrong", labels=["no", "yes"])


def test_padding_that_only_the_tokenizer_names_is_taken(tmp_path: Path) -> None:
    theirs = save_classifier("qwen3", tmp_path / "theirs")
    changed(theirs, pad_token_id=None)
    done = import_model(theirs, tmp_path / "ours")
    assert any("the tokenizer's is used: [PAD]" in note for note in done.notes)
    np.testing.assert_allclose(
        Predictor(tmp_path / "ours").predict_proba(TEXTS), piped(tmp_path / "ours"), atol=1e-5
    )
    save_word_tokenizer(theirs, pad_token=None)
    with pytest.raises(ModelError, match="has no padding token"):
        import_model(theirs, tmp_path / "none")


def test_length_is_what_the_positions_allow(tmp_path: Path) -> None:
    """Position embeddings of RoBERTa begin behind the one of padding."""
    theirs = save_classifier("xlm-roberta", tmp_path / "theirs")
    save_word_tokenizer(theirs, model_max_length=10**9)
    whole = SIZES["max_position_embeddings"]
    assert import_model(theirs, tmp_path / "ours").max_length == whole - 1
    done = import_model(theirs, tmp_path / "long", max_length=100)
    assert "It can read at most 63 tokens per text" in done.notes
    assert import_model(theirs, tmp_path / "short", max_length=8).max_length == 8
    assert Predictor(tmp_path / "short").model.max_tokens == 8
    long = save_classifier("modernbert", tmp_path / "modern", max_position_embeddings=2048)
    save_word_tokenizer(long, model_max_length=2048)
    done = import_model(long, tmp_path / "modern-ours")
    assert done.max_length == 512
    assert "supports 2,048: --max-length" in done.notes[0]


def test_other_probabilities_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that reads token types, which we do not give."""
    from transformers import BertForSequenceClassification

    forward = BertForSequenceClassification.forward

    def reading_types(self: object, *args: object, **given: object) -> object:
        output = forward(self, *args, **given)
        output.logits = output.logits + (0.0 if given.get("token_type_ids") is None else 1.0) * (
            output.logits.new_tensor([1.0, 0.0, 0.0])
        )
        return output

    theirs = save_classifier("bert", tmp_path / "theirs")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    save_word_tokenizer(theirs, model_input_names=names)
    import_model(theirs, tmp_path / "plain")
    monkeypatch.setattr(BertForSequenceClassification, "forward", reading_types)
    with pytest.raises(ModelError, match="its probabilities differ from those in transformers"):
        import_model(theirs, tmp_path / "ours")


@pytest.mark.parametrize("folders", some("distilbert"), indirect=True)
def test_an_import_with_int8_keeps_its_head(
    folders: tuple[Path, Path], labeled: Path, tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    out = str(tmp_path / "int8")
    words = ["--data", str(labeled), "--out", out, "--int8", "--max-drop", "100", "--quiet"]
    valence("export", str(folders[1]), *words)
    # the weights are random and wide, so 8 bits move single rows far; another head would not follow
    before, after = (Predictor(path).predict_proba(TEXTS) for path in (folders[1], Path(out)))
    for label in range(len(LABELS)):
        assert np.corrcoef(before[:, label], after[:, label])[0, 1] > 0.6
    assert (tmp_path / "int8/onnx/model_quantized.onnx").exists()
