from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valence.config.sections import EncoderSpec
from valence.data.dataset import Split
from valence.errors import DataError, ModelError, UnknownNameError
from valence.llm.retrieval import NONE, DemonstrationPool, Embedder, Retriever, nearest_by_label
from valence.storage import cache


def by_hand(
    queries: np.ndarray, groups: np.ndarray, pool: DemonstrationPool, count: int
) -> np.ndarray:
    """One query, one label at a time."""
    found = np.full((len(queries), pool.class_count, count), NONE)
    for q, query in enumerate(queries):
        for label in range(pool.class_count):
            rows = [i for i in np.flatnonzero(pool.labels == label) if pool.groups[i] != groups[q]]
            rows.sort(key=lambda i: -float(pool.vectors[i] @ query))
            found[q, label, : len(rows[:count])] = rows[:count]
    return found


@given(st.integers(0, 1000), st.integers(1, 3), st.sampled_from(["blocks", "faiss"]))
@settings(max_examples=25, deadline=None)
def test_search_is_exact(seed: int, count: int, backend: str) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    draw = np.random.default_rng(seed)
    size, classes = int(draw.integers(2, 30)), 4
    vectors = draw.normal(size=(size, 8)).astype(np.float32)
    groups = draw.integers(0, 6, size)  # many exact copies
    pool = DemonstrationPool(vectors, draw.integers(0, classes, size), groups, classes)
    queries = draw.normal(size=(7, 8)).astype(np.float32)
    asked = draw.integers(0, 8, 7)
    found = nearest_by_label(queries, asked, pool, count=count, backend=backend)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, by_hand(queries, asked, pool, count))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(50, 8)).astype(np.float32)
    pool = DemonstrationPool(vectors, np.arange(50) % 3, np.arange(50), 3)
    whole = nearest_by_label(vectors, np.arange(50), pool)
    monkeypatch.setattr("valence.llm.retrieval.BLOCK_SCORES", 120)
    np.testing.assert_array_equal(nearest_by_label(vectors, np.arange(50), pool), whole)
    assert (whole[:, :, 0] != np.arange(50)[:, None]).all(), "never itself"


def rows(texts: list[str], labels: list[int], languages: list[str] | None = None) -> Split:
    extra = pd.DataFrame({"language": languages}) if languages else pd.DataFrame()
    return Split(texts, np.array(labels), np.arange(len(texts)).astype(str), extra)


@pytest.fixture(scope="module")
def embedder(tiny_encoder: Path) -> Embedder:
    return Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu")


def test_embeddings_are_unit_length_and_kept(embedder: Embedder) -> None:
    texts = ["the film was good", "bad", "the film was good", "a very dull plot"]
    vectors = embedder(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    kept = len(cache.folders("embeddings", f"{embedder.key}-"))
    told: list[int] = []
    again = embedder(texts[::-1], lambda done, all_: told.append(all_))
    np.testing.assert_array_equal(again, vectors[::-1])
    assert not told, "nothing is computed twice"
    assert len(cache.folders("embeddings", f"{embedder.key}-")) == kept
    alone = embedder(["a very dull plot not seen before but now"])
    assert alone.shape == (1, 32)


def test_pooling_by_name(tiny_encoder: Path) -> None:
    spec = EncoderSpec(name=str(tiny_encoder))
    vectors = {name: Embedder(spec, name, device="cpu")(["good film"]) for name in
               ("mean", "cls", "max", "pooler")}  # fmt: skip
    assert len({v.tobytes() for v in vectors.values()}) == 4
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        Embedder(spec, "means")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Embedder(EncoderSpec(name="no/such-encoder"))


def test_never_itself_a_copy_or_a_test_text(embedder: Embedder) -> None:
    train = rows(["good film", "good film ", "lovely film", "bad film", "awful"], [1, 1, 1, 0, 0])
    retriever = Retriever(embedder, train, 2)
    own = retriever.find(train)
    assert own[0, 1, 0] == 2
    assert own[1, 1, 0] == 2
    assert own[2, 1, 0] in (0, 1)
    test = rows(["bad film", "good plot"], [0, 0])
    found = retriever.find(test)
    assert found[0, 0, 0] == 4, "a copy of the test text is no demonstration"
    assert (found < len(train)).all()


def test_a_label_of_one_text_has_no_other(embedder: Embedder) -> None:
    train = rows(["good", "bad", "awful"], [1, 0, 0])
    assert Retriever(embedder, train, 2).find(train)[0, 1, 0] == NONE


def test_demonstrations_are_of_the_own_language(embedder: Embedder) -> None:
    train = rows(["good", "bad", "lovely", "awful"], [1, 0, 1, 0], ["en", "en", "de", "de"])
    test = rows(["good film", "good film"], [1, 1], ["de", "en"])
    found = Retriever(embedder, train, 2, group="language").find(test)
    assert set(found[0].ravel()) == {2, 3}
    assert set(found[1].ravel()) == {0, 1}
    foreign = rows(["good film"], [1], ["fr"])
    with pytest.raises(DataError, match=r"Language 'fr' has no training rows.*--pool all"):
        Retriever(embedder, train, 2, group="language").find(foreign)
    assert Retriever(embedder, train, 2).find(foreign).shape == (1, 2, 1)
