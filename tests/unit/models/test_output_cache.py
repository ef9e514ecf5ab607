"""Outputs of frozen encoders on disk: never another text's, whatever happens to the chunks."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from valence.config.spec import EncoderSpec
from valence.data.collate import Encoded
from valence.llm.retrieval import Embedder
from valence.models import frozen, output_keys
from valence.models.base import Progress
from valence.models.encoder import Encoder, TextTokenizer
from valence.models.frozen import FrozenStates, OutputCache, PooledFeatures
from valence.models.layer_features import LastLayerMeans, LayerVectors
from valence.models.output_keys import weights_key
from valence.storage import cache

WORDS = ("good", "bad", "film", "plot", "very", "not", "dull", "lovely")
TEXTS = [f"{a} {b} {c}" for a in WORDS[:4] for b in WORDS[4:] for c in WORDS]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(frozen, "CHUNK", 16)
    return tmp_path / "cache"


@pytest.fixture
def encoder(tiny_encoder: Path) -> Encoder:
    return Encoder(EncoderSpec(name=str(tiny_encoder), adaptation="frozen")).eval()


@pytest.fixture(scope="module")
def encoded(tiny_encoder: Path) -> Encoded:
    return TextTokenizer(EncoderSpec(name=str(tiny_encoder)))(TEXTS)


@torch.inference_mode()
def truth(encoder: Encoder, encoded: Encoded) -> list[np.ndarray]:
    """(T, H) states of every text, computed one by one."""
    rows = [torch.tensor([ids]) for ids in encoded.input_ids]
    return [encoder(ids, torch.ones_like(ids))[0].numpy() for ids in rows]


def check(encoder: Encoder, encoded: Encoded) -> None:
    """Every text gets its own states."""
    attached = FrozenStates(encoder, 0).attach(encoded)
    assert attached.states is not None
    for row, expected in enumerate(truth(encoder, encoded)):
        np.testing.assert_allclose(attached.row(row), expected, atol=1e-5)


def chunks(own_cache: Path) -> list[Path]:
    return sorted(path.parent for path in own_cache.glob(f"states/*/{cache.ABOUT}"))


def test_only_the_same_token_ids_are_the_same_text(encoder: Encoder, encoded: Encoded) -> None:
    for part in (slice(0, 50), slice(40, 90), slice(100, None), slice(0, None, 3)):
        check(encoder, Encoded(encoded.input_ids[part], 0))


def test_a_chunk_that_goes_while_others_are_written(
    encoder: Encoder, encoded: Encoded, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FrozenStates(encoder, 0).attach(Encoded(encoded.input_ids[:50], 0))
    original = OutputCache._write

    def clearing(self: OutputCache, *words: object) -> object:
        cache.clear()
        return original(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputCache, "_write", clearing)
    check(encoder, encoded)


def test_a_chunk_that_goes_between_its_listing_and_its_reading(
    encoder: Encoder, encoded: Encoded, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(encoder, encoded)
    original = frozen._open_chunk
    gone = iter(chunks(own_cache)[::2])

    def deleting(folder: Path) -> object:
        if (path := next(gone, None)) is not None:
            shutil.rmtree(path)
        return original(folder)

    monkeypatch.setattr(frozen, "_open_chunk", deleting)
    check(encoder, encoded)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "values truncated": lambda folder: cut_in_half(folder / frozen.VALUES),
    "values garbage": lambda folder: (folder / frozen.VALUES).write_bytes(b"garbage" * 99),
    "values empty": lambda folder: (folder / frozen.VALUES).write_bytes(b""),
    "values gone": lambda folder: (folder / frozen.VALUES).unlink(),
    "values of another shape": lambda folder: np.save(folder / frozen.VALUES, np.zeros((2, 3))),
    "index truncated": lambda folder: cut_in_half(folder / frozen.INDEX),
    "index garbage": lambda folder: (folder / frozen.INDEX).write_bytes(b"garbage" * 99),
    "index empty": lambda folder: (folder / frozen.INDEX).write_bytes(b""),
    "index gone": lambda folder: (folder / frozen.INDEX).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_chunk_is_computed_again(
    damage: str, encoder: Encoder, encoded: Encoded, own_cache: Path
) -> None:
    check(encoder, encoded)
    before = chunks(own_cache)
    DAMAGES[damage](before[0])
    check(encoder, encoded)
    assert chunks(own_cache) == before
    again = {path: path.stat().st_ino for path in before}
    check(encoder, encoded)
    assert {path: path.stat().st_ino for path in before} == again, "computed once more only"


def test_an_encoder_replaced_under_the_same_path_is_another(
    tiny_encoder: Path, encoded: Encoded, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    spec = EncoderSpec(name=str(folder), adaptation="frozen")
    check(Encoder(spec).eval(), encoded)
    torch.manual_seed(7)
    model = AutoModel.from_config(AutoModel.from_pretrained(folder).config)
    model.save_pretrained(folder)
    check(Encoder(spec).eval(), encoded)


def test_the_same_encoder_under_another_path_is_the_same(
    tiny_encoder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    shutil.copytree(tiny_encoder, tmp_path / "copy")
    other = Encoder(EncoderSpec(name=str(tmp_path / "copy"), adaptation="frozen"))
    assert weights_key(other) == weights_key(encoder)


def test_the_precision_in_effect_is_part_of_the_key(encoder: Encoder, encoded: Encoded) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = FrozenStates(encoder, 0).attach(encoded)
    check(encoder, encoded)
    fine = FrozenStates(encoder, 0).attach(encoded)
    assert np.abs(coarse.row(0) - fine.row(0)).max() > 1e-4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = FrozenStates(encoder, 0).attach(encoded)
    np.testing.assert_array_equal(again.row(0), coarse.row(0))


def test_another_format_is_not_read(
    encoder: Encoder, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = output_keys.output_key("weights", "float32")
    monkeypatch.setattr(output_keys, "FORMAT", "next")
    assert output_keys.output_key("weights", "float32") != before


def in_process(work: Callable[[], object]) -> int:
    """The id of a new process that works and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child touches no thread
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def test_processes_that_write_at_once(
    encoded: Encoded, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = PooledFeatures("key", length_features, "lengths")
    begin = time.time() + 0.5

    def write(size: int) -> None:
        monkeypatch.setattr(frozen, "CHUNK", size)
        time.sleep(max(0.0, begin - time.time()))  # a busy machine is late
        features.of(encoded)

    children = [in_process(partial(write, size)) for size in (4, 4, 3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert not list(own_cache.rglob(".valence-*"))
    before = cache.entries()
    np.testing.assert_array_equal(features.of(encoded), length_features(encoded, None))
    assert len(cache.entries()) == len(before), "there is nothing left to compute"


def test_chunks_are_mapped_and_those_without_the_texts_left_alone(
    encoder: Encoder, encoded: Encoded, own_cache: Path
) -> None:
    states = FrozenStates(encoder, 0)
    states.attach(encoded)
    few = states.attach(Encoded(encoded.input_ids[:1], 0)).states
    assert isinstance(few, frozen.StateRows)
    assert len(few.chunks) == 1
    assert isinstance(few.chunks[0], np.memmap)
    assert len(chunks(own_cache)) == len(TEXTS) // 16


def test_read_chunks_count_as_used(encoder: Encoder, encoded: Encoded, own_cache: Path) -> None:
    states = FrozenStates(encoder, 0)
    states.attach(encoded)
    for folder in chunks(own_cache):
        os.utime(folder / cache.ABOUT, (1, 1))
    states.attach(Encoded(encoded.input_ids[:1], 0))
    used = [(folder / cache.ABOUT).stat().st_mtime > 1 for folder in chunks(own_cache)]
    assert sum(used) == 1


def test_states_beyond_the_limit_of_the_cache_are_not_stored(
    encoder: Encoder, encoded: Encoded, own_cache: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("VALENCE_CACHE_LIMIT", "1KB")
    assert FrozenStates(encoder, 0).attach(encoded).states is None
    assert "the cache has room for 1000 B" in caplog.text
    assert chunks(own_cache) == []


def length_features(encoded: Encoded, progress: Progress | None) -> np.ndarray:
    """(N, 2) length and last token of every text."""
    return np.array([[len(ids), sum(ids)] for ids in encoded.input_ids], dtype=np.float32)


@pytest.fixture(params=["pooled", "embeddings"])
def vectors(
    request: pytest.FixtureRequest, tiny_encoder: Path, encoded: Encoded
) -> Iterator[Callable[[], np.ndarray]]:
    """What gives the vectors of all texts, from the cache where they are there."""
    if request.param == "pooled":
        yield partial(PooledFeatures("key", length_features, "lengths").of, encoded)
    else:
        yield partial(Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu"), TEXTS)


def test_vectors_whose_chunks_go_are_computed_again(
    vectors: Callable[[], np.ndarray], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vectors()
    original = frozen._open_chunk
    folders = sorted(path.parent for path in own_cache.glob(f"*/*/{cache.ABOUT}"))
    assert len(folders) == len(TEXTS) // 16
    cut_in_half(folders[1] / frozen.VALUES)
    shutil.rmtree(folders[2])
    gone = iter(folders[3:5])

    def deleting(folder: Path) -> object:
        if (path := next(gone, None)) is not None:
            shutil.rmtree(path)
        return original(folder)

    monkeypatch.setattr(frozen, "_open_chunk", deleting)
    np.testing.assert_allclose(vectors(), expected, atol=1e-6)


def test_vectors_without_room_are_computed(
    vectors: Callable[[], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cache, "room_bytes", lambda: 10)
        without = vectors()
    assert cache.entries() == []
    np.testing.assert_allclose(vectors(), without, atol=1e-6)


def test_another_pooler_makes_other_embeddings(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    spec = EncoderSpec(name=str(folder))
    before = Embedder(spec, "pooler", device="cpu")(TEXTS[:3])
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.pooler.dense.weight.mul_(2)
    model.save_pretrained(folder)
    assert np.abs(Embedder(spec, "pooler", device="cpu")(TEXTS[:3]) - before).max() > 1e-3


def test_the_last_layer_and_all_layers_share_a_pass(
    encoder: Encoder, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.stack([states.mean(axis=0) for states in truth(encoder, encoded)])
    means = LastLayerMeans(encoder, 0)
    np.testing.assert_allclose(means.of(encoded), expected, atol=1e-5)
    layers = LayerVectors(encoder, 0, cached=True)
    assert layers.are_stored(encoded)
    monkeypatch.setattr(encoder, "layers", lambda *_: pytest.fail("the encoder ran again"))
    np.testing.assert_allclose(layers.of(encoded)[:, layers.last], expected, atol=1e-5)
    np.testing.assert_allclose(means.of(encoded), expected, atol=1e-5)
