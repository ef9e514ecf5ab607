"""Scores of words sum up to what the text changes; the nearest texts are the nearest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_reviews
from tests.models import fitted, untrained
from valence.config.data import DataSpec
from valence.data.dataset import Split, TrainingData
from valence.data.examples import Examples
from valence.errors import ModelError, UnknownNameError
from valence.inference.explain.explain import as_document, explain
from valence.inference.explain.neighbors import FILE, NO_TEXT, build_index, find_index
from valence.inference.explain.page import write_page
from valence.inference.predictor import Predictor
from valence.methods.registry import METHODS, make_spec
from valence.models.attribution import integrated_gradients, leave_one_out, log_odds
from valence.models.torch_model import TorchModel

TEXT = "the film was really great but the food was awful"
SHAPES = (
    "linear-probe", "full", "dora-balanced", "sharprecl", "lstm-roberta", "han-roberta", "hy-mora"
)  # fmt: skip


def split(rows: int, seed: int) -> Split:
    table = make_reviews(rows, seed)
    labels = table["label"].map({"bad": 0, "good": 1, "meh": 2}).to_numpy(np.int64)
    return Split(table["text"].tolist(), labels, np.arange(rows).astype(str))


@pytest.fixture(scope="module")
def rows() -> TrainingData:
    return TrainingData(("bad", "good", "meh"), (2,), split(80, 0), split(30, 1))


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, rows: TrainingData, tiny_encoder: Path
) -> Callable[[str], Predictor]:
    """Predictors of models that were made, and where that is quick fitted."""
    known: dict[str, Predictor] = {}

    def make(name: str) -> Predictor:
        if name not in known:
            settings = (
                {} if name in ("majority", "tfidf-lr") else {"encoder.name": str(tiny_encoder)}
            )
            if METHODS[name].family == "fine-tuning":
                settings["loss.memory_warmup_steps"] = 1
            spec = make_spec(name, DataSpec(), settings=settings)
            folder = tmp_path_factory.mktemp(name)
            if METHODS[name].family == "baseline":
                model = fitted(spec, rows)
            else:
                model = untrained(spec, rows)
                for part in model.classifier.parameters():  # adapters start at no change
                    if part.requires_grad and part.dim() == 2 and not part.any():
                        torch.nn.init.normal_(part, std=0.3)
            model.save(folder)
            known[name] = Predictor(folder)
        return known[name]

    return make


@pytest.mark.parametrize("name", SHAPES)
def test_integrated_gradients_sum_up(saved: Callable[[str], Predictor], name: str) -> None:
    predictor = saved(name)
    model = predictor.model
    assert isinstance(model, TorchModel)
    (found,) = explain(predictor, [TEXT], target="good", neighbors=0)
    ids = model.tokenizer([TEXT]).input_ids[0]
    empty = [ids[0], *[model.tokenizer.pad_id] * (len(ids) - 2), ids[-1]]
    with torch.inference_mode():
        output = model.classifier(
            torch.ones(2, len(ids), dtype=torch.long), torch.tensor([ids, empty])
        )
    whole, none = log_odds(output["logits"].numpy(), 1)
    total = sum(token.score for token in found.tokens)
    assert total == pytest.approx(whole - none, abs=0.02 + 0.02 * abs(whole - none))
    assert found.error == pytest.approx(abs(total - (whole - none)), abs=1e-4)
    assert [token.text for token in found.tokens] == TEXT.split()
    assert all(TEXT[t.start : t.end] == t.text for t in found.tokens)
    assert found.method == "integrated gradients"
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_more_steps_make_the_error_smaller(saved: Callable[[str], Predictor]) -> None:
    model = saved("full").model
    assert isinstance(model, TorchModel)
    errors = [integrated_gradients(model, TEXT, 0, steps).error or 0.0 for steps in (2, 64)]
    assert errors[1] <= errors[0]
    assert errors[1] < 1e-3


def test_terms_sum_up_and_point_the_right_way(saved: Callable[[str], Predictor]) -> None:
    predictor = saved("tfidf-lr")
    text = "Loved it: the room was GREAT, great!  really lovely"
    (found,) = explain(predictor, [text], target="good")
    model = predictor.model
    logits = model.predict(Examples([text, ""])).logits.astype(float)
    margin = logits[:, 1] - logits[:, [0, 2]].mean(axis=1)
    assert sum(t.score for t in found.tokens) == pytest.approx(margin[0] - margin[1], abs=1e-4)
    assert found.error == pytest.approx(0, abs=1e-6)
    scores = {t.text: t.score for t in found.tokens}
    assert scores["GREAT,"] > 0
    assert scores["lovely"] > 0
    assert explain(predictor, [text], target="bad")[0].tokens[-1].score < 0
    assert found.neighbors == []


def test_majority_and_models_without_gradients(saved: Callable[[str], Predictor]) -> None:
    (found,) = explain(saved("majority"), [TEXT])
    assert (found.tokens, found.label) == ([], "good")
    assert "predicts the same label" in found.note
    other = leave_one_out(saved("tfidf-lr").model, "it was great", 1)
    assert [TEXT[:0] or span for span, _ in other.pieces] == [(0, 2), (3, 6), (7, 12)]
    assert other.pieces[2][1] > 0


def test_nearest_are_the_nearest_and_are_kept(
    saved: Callable[[str], Predictor], rows: TrainingData, tmp_path: Path
) -> None:
    predictor = saved("linear-probe")
    assert explain(predictor, [TEXT])[0].neighbors == []
    index = build_index(predictor, rows.train)
    near = explain(predictor, rows.train.texts[:3], index=index, neighbors=4)
    for text, label, found in zip(rows.train.texts, rows.train.labels, near, strict=False):
        assert found.neighbors[0].text == text
        assert found.neighbors[0].label == rows.classes[label]
        assert found.neighbors[0].similarity == pytest.approx(1, abs=2e-3)
        values = [n.similarity for n in found.neighbors]
        assert values == sorted(values, reverse=True)
        assert len(values) == 4
    assert not (predictor.folder / FILE).exists()
    again = build_index(
        predictor, rows.train, progress=lambda *_: pytest.fail("not kept"), keep=True
    )
    np.testing.assert_array_equal(again.vectors, index.vectors)
    assert explain(predictor, [TEXT])[0].neighbors[0].text in rows.train.texts
    (predictor.folder / FILE).write_bytes(b"broken")
    with pytest.raises(ModelError, match="create it again with --data"):
        explain(predictor, [TEXT])
    (predictor.folder / FILE).unlink()


def test_prototype_memory_stands_in_for_texts(saved: Callable[[str], Predictor]) -> None:
    predictor = saved("hy-mora")
    model = predictor.model
    assert isinstance(model, TorchModel)
    assert find_index(predictor) is None
    memory = next(
        m for m in model.classifier.loss.modules() if type(m).__name__ == "PrototypeMemory"
    )
    memory.step += 5
    vectors = torch.nn.functional.normalize(torch.randn(6, memory.bank.shape[2]), dim=1)
    memory.store(vectors, torch.tensor([0, 0, 0, 0, 1, 2]))
    found = explain(predictor, [TEXT], neighbors=3)[0].neighbors
    assert [n.text for n in found] == [NO_TEXT] * 3


def test_wrong_target_and_no_text(saved: Callable[[str], Predictor]) -> None:
    assert explain(saved("majority"), []) == []
    with pytest.raises(UnknownNameError, match="did you mean 'good'"):
        explain(saved("majority"), [TEXT], target="goood")


@pytest.mark.parametrize("text", ["", " ", "\u200d", "好看 ☕ zz-9", "a" * 300 + " great"])
def test_odd_texts(saved: Callable[[str], Predictor], text: str, tmp_path: Path) -> None:
    for name in ("linear-probe", "tfidf-lr"):
        (found,) = explain(saved(name), [text])
        assert all(text[t.start : t.end] == t.text and t.text for t in found.tokens)
        assert np.isfinite([t.score for t in found.tokens]).all()


def test_page_escapes_and_shows_the_whole_text(
    saved: Callable[[str], Predictor], tmp_path: Path
) -> None:
    text = "great <script>x</script> & fine"
    found = explain(saved("tfidf-lr"), [text])
    page = write_page(found, tmp_path / "a" / "page.html", title="m").read_text()
    assert "<script>x" not in page
    assert 'class="against"' in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert page.count("<mark") == 4
    assert set(as_document(found[0])) >= {"text", "label", "tokens", "neighbours", "modalities"}
