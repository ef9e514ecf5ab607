"""Archives: the round trip from a pickle, what is refused, and reading through a map."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.features import mmsa as talks
from tests.features import write_mmsa
from valence.config.spec import DataSpec
from valence.data.features import archive as archive_module
from valence.data.features import convert as convert_module
from valence.data.features.archive import FEATURE_CARDS, SPLITS, FeatureArchive, FeatureView
from valence.data.features.convert import convert
from valence.data.sources import load_dataset
from valence.errors import DataError, RunError
from valence.storage import cache

NAMES = {"train": "train", "valid": "validation", "test": "test"}


def mmsa(rows: int = 5, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """A file of the MMSA layout: padded features, −inf in the audio, lengths given."""
    draw = np.random.default_rng(seed)
    content = {}
    for split in NAMES:
        audio = draw.normal(size=(rows, 6, 3)).astype(np.float32)
        vision = draw.normal(size=(rows, 4, 2))
        audio_lengths, vision_lengths = draw.integers(1, 7, rows), draw.integers(1, 5, rows)
        for i in range(rows):
            audio[i, audio_lengths[i] :] = 0
            vision[i, vision_lengths[i] :] = 0
        audio[0, 0, 0] = -np.inf
        content[split] = {
            "raw_text": np.array([f"{split} text {i}" for i in range(rows)]),
            "id": [f"{split}$_${i}" for i in range(rows)],
            "audio": audio,
            "vision": vision,
            "audio_lengths": audio_lengths.tolist(),
            "vision_lengths": vision_lengths,
            "regression_labels": draw.uniform(-1, 1, (rows, 1)).astype(np.float32),
            "regression_labels_T": draw.uniform(-1, 1, rows),
            "annotations": ["Positive"] * rows,
        }
    return content


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def call(content: object, name: str = "features.pkl") -> Path:
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        return path

    return call


def test_round_trip(write: Any, tmp_path: Path) -> None:
    content = mmsa()
    archive = convert(write(content), tmp_path / "archive")
    assert archive.manifest.rows == dict.fromkeys(SPLITS, 5)
    assert archive.manifest.widths == {"audio": 3, "vision": 2}
    assert archive.manifest.zeroed["audio"] == {"-inf": 3, "inf": 0, "nan": 0}
    for theirs, ours in NAMES.items():
        split, source = FeatureArchive.open(tmp_path / "archive").split(ours), content[theirs]
        assert split.ids == source["id"]
        assert split.texts == source["raw_text"].tolist()
        np.testing.assert_array_equal(split.labels, source["regression_labels"][:, 0])
        np.testing.assert_allclose(split.table["label_text"], source["regression_labels_T"])
        order = [3, 0, 4]
        batch = split.batch(order)
        for modality in ("audio", "vision"):
            expected = np.where(np.isfinite(source[modality]), source[modality], 0)[order]
            lengths = np.asarray(source[f"{modality}_lengths"])[order]
            most = lengths.max()
            assert batch.steps[modality].dtype == np.float32
            np.testing.assert_allclose(batch.steps[modality], expected[:, :most], rtol=1e-6)
            np.testing.assert_array_equal(batch.masks[modality].sum(1), lengths)
            assert batch.masks[modality].shape == (3, most)
        assert batch.ids == [source["id"][i] for i in order]
    assert not list(tmp_path.glob(".*"))


def test_rows_of_different_lengths_as_a_list(write: Any, tmp_path: Path) -> None:
    content = mmsa()
    ragged = [np.full((i + 1, 3), i, dtype=np.float32) for i in range(5)]
    for rows in content.values():
        rows["audio"] = ragged
        del rows["audio_lengths"]
    split = convert(write(content), tmp_path / "archive").split("train")
    assert split.lengths["audio"].tolist() == [0, 2, 3, 4, 5]  # the first is all zero
    np.testing.assert_array_equal(split.row("audio", 3), ragged[3])


def test_lengths_are_found_where_none_are_given(write: Any, tmp_path: Path) -> None:
    content = mmsa()
    given = convert(write(content), tmp_path / "given").split("test")
    for rows in content.values():
        del rows["audio_lengths"], rows["vision_lengths"]
    archive = convert(write(content, "without.pkl"), tmp_path / "found")
    for modality in ("audio", "vision"):
        found = archive.split("test").lengths[modality]
        np.testing.assert_array_equal(found, given.lengths[modality])
        assert any(f"{modality} lengths are missing" in n for n in archive.manifest.notes)


def test_a_split_without_a_modality(write: Any, tmp_path: Path) -> None:
    content = mmsa()
    content["test"]["audio_lengths"] = [0] * 5
    split = convert(write(content), tmp_path / "archive").split("test")
    assert not split.batch(range(5)).masks["audio"].any()
    assert split.row("audio", 4).shape == (0, 3)
    mean, deviation = split.statistics("audio")
    assert mean.tolist() == deviation.tolist() == [0, 0, 0]


def test_limits_cut_and_count(write: Any, tmp_path: Path) -> None:
    split = convert(write(mmsa()), tmp_path / "archive").split("train")
    batch = split.batch(range(5), limits={"audio": 2})
    assert batch.steps["audio"].shape[1] == 2
    assert batch.truncated == {"audio": int((split.lengths["audio"] > 2).sum()), "vision": 0}


def test_statistics_are_those_of_the_real_steps(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valence.data.features.archive._BLOCK", 9)  # three steps at a time
    content = mmsa(rows=9)
    for rows in content.values():
        rows["audio"] = rows["audio"] * 0.01 + 1e4  # a large offset eats digits
    split = convert(write(content), tmp_path / "archive").split("train")
    real = np.concatenate([split.row("audio", i) for i in range(9)]).astype(np.float64)
    mean, deviation = split.statistics("audio")
    np.testing.assert_allclose(mean, real.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, real.std(0), rtol=1e-4)


def test_reading_a_batch_does_not_load_the_archive(write: Any, tmp_path: Path) -> None:
    content = mmsa(rows=2)
    steps, rows = 3000, 120
    big = {
        "raw_text": ["t"] * rows,
        "id": [str(i) for i in range(rows)],
        "audio": np.ones((rows, steps, 150), dtype=np.float32),  # 206 MiB
        "vision": np.ones((rows, 1, 2), dtype=np.float32),
        "regression_labels": np.zeros(rows),
    }
    for name in ("valid", "test"):
        content[name] = {k: v[:1] for k, v in big.items()}
    content["train"] = big
    convert(write(content), tmp_path / "archive")
    del content, big
    code = (
        "import resource, sys\n"
        "import numpy, pandas\n"
        "from valence.data.features.archive import FeatureArchive\n"
        "split = FeatureArchive.open(sys.argv[1]).split('train')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert split.batch([3, 80]).steps['audio'].sum() == 2 * 3000 * 150\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "archive")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 40 * 1024, "KiB more for two rows of 206 MiB"


def test_a_map_that_is_let_go_reads_on(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = convert(write(mmsa()), tmp_path / "archive").split("train")
    expected = split.batch([0, 1, 4]).steps["audio"]
    monkeypatch.setattr(archive_module, "_MAPPED_MOST", 0)
    np.testing.assert_array_equal(split.batch([0, 1, 4]).steps["audio"], expected)
    assert not split._files


def test_a_split_travels_to_a_worker(write: Any, tmp_path: Path) -> None:
    split = convert(write(mmsa()), tmp_path / "archive").split("train")
    expected = split.batch([0, 1]).steps["audio"]
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.batch([0, 1]).steps["audio"], expected)


def without(key: str) -> Any:
    def change(content: dict[str, Any]) -> None:
        del content["valid"][key]

    return change


def with_value(key: str, value: object) -> Any:
    def change(content: dict[str, Any]) -> None:
        content["test"][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("audio"), r"split 'validation': no 'audio'; it has: raw_text, id, vision"),
        (without("id"), "no 'id'"),
        (lambda c: c.pop("valid"), "split 'valid' is missing; the file has: train, test"),
        (with_value("raw_text", ["a"]), "1 of 'text' for 5 ids"),
        (with_value("vision", np.zeros((4, 2, 2))), "4 of 'vision' for 5 ids"),
        (with_value("audio", np.zeros((5, 3))), "row 1: 'audio' is"),
        (with_value("audio_lengths", [1, 2]), "2 of 'audio_lengths' for 5 ids"),
        (with_value("audio_lengths", [1, 2, 3, 9, 1]), "row 4: 'audio_lengths' says 9 and the row"),
        (with_value("id", ["a", "b", "a", "c", "d"]), "id 'a' occurs 2 times"),
        (with_value("id", []), "no rows"),
        (with_value("regression_labels", [1, 2, np.nan, 0, 0]), "row 3: 'regression_labels'"),
        (with_value("regression_labels", ["x"] * 5), "a value that is not a number"),
        (with_value("vision", np.zeros((5, 4, 7))), "steps of different widths: train 2"),
        (with_value("annotations", ["Positive"]), "1 of 'annotation' for 5 ids"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(
    change: Any, message: str, write: Any, tmp_path: Path
) -> None:
    content = mmsa()
    change(content)
    with pytest.raises(DataError, match=message) as refused:
        convert(write(content), tmp_path / "archive")
    assert "\n" not in str(refused.value)
    assert "features.pkl" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["features.pkl"], "nothing half written"


@pytest.mark.parametrize("content", [[1, 2], {}, {"train": 3}])
def test_no_such_layout(content: object, write: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"layout|missing"):
        convert(write(content), tmp_path / "archive")


def test_written_whole_or_not_at_all(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "_notes", full)
    with pytest.raises(RunError, match="No space left"):
        convert(write(mmsa()), tmp_path / "archive")
    assert [path.name for path in tmp_path.iterdir()] == ["features.pkl"]


def test_the_same_source_is_not_converted_twice_and_another_not_over_it(
    write: Any, tmp_path: Path
) -> None:
    source = write(mmsa())
    convert(source, tmp_path / "archive")
    written = (tmp_path / "archive" / "manifest.json").stat().st_mtime_ns
    convert(source, tmp_path / "archive")
    assert (tmp_path / "archive" / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="is not empty"):
        convert(write(mmsa(seed=1), "other.pkl"), tmp_path / "archive")


def test_shared_ids_and_empty_modalities_are_said(write: Any, tmp_path: Path) -> None:
    content = mmsa()
    content["test"]["id"][0] = "train$_$0"
    content["train"]["text"] = np.zeros((5, 2, 768))
    content["train"]["vision_lengths"][[0, 4]] = 0
    notes = convert(write(content), tmp_path / "archive").manifest.notes
    assert any(note.startswith("1 ids are in two splits") for note in notes)
    assert "2 rows have no vision" in notes
    assert any(note.startswith("text features in the file are ignored") for note in notes)
    batch = FeatureArchive.open(tmp_path / "archive").split("train").batch([0, 4])
    assert batch.steps["vision"].shape == (2, 1, 2)
    assert not batch.masks["vision"].any()


def test_damaged_archives(write: Any, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        FeatureArchive.open(folder)
    convert(write(mmsa()), folder)
    with pytest.raises(DataError, match="no split 'dev'"):
        FeatureArchive.open(folder).split("dev")
    rows = pd.read_parquet(folder / "rows.parquet")
    rows.iloc[1:].to_parquet(folder / "rows.parquet")
    with pytest.raises(DataError, match=r"train\.audio\.safetensors holds"):
        FeatureArchive.open(folder)
    (folder / "train.audio.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train\.audio\.safetensors cannot be read"):
        FeatureArchive.open(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(DataError, match="not an archive of format 1"):
        FeatureArchive.open(folder)


def test_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        convert(tmp_path / "none.pkl", tmp_path / "archive")


def test_cards_agree_with_the_model_sizes() -> None:
    from valence.models.multimodal import ALMT_SETUPS

    assert FEATURE_CARDS.keys() == ALMT_SETUPS.keys()
    for name, card in FEATURE_CARDS.items():
        sizes = ALMT_SETUPS[name]
        modalities = ("text", "audio", "vision")
        assert card.steps == tuple(sizes.length(m) for m in modalities)
        assert card.widths == tuple(sizes.width(m) for m in modalities)


def test_real_mosi(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "mosi" / "utterance_features.pkl"
    if not source.exists():
        pytest.skip("no MOSI features at hand")
    archive = convert(source, tmp_path / "mosi")
    assert archive.manifest.widths == {"audio": 73, "vision": 100}
    table = pd.read_csv(source.with_name("label.csv"))
    labels = {f"{r.video_id}$_${r.clip_id}": r.label for r in table.itertuples()}
    for name in SPLITS:
        split = archive.split(name)
        known = [labels[i] for i in split.ids]
        np.testing.assert_allclose(split.labels, known, atol=1e-5)


def test_a_converted_pickle_is_held_and_a_damaged_one_converted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path / "cache"))
    spec = DataSpec(name=str(write_mmsa(tmp_path / "talks.pkl", talks(24))))
    first = load_dataset(spec)
    (entry,) = cache.entries()
    assert cache.clear() == 0, "its steps are read bit by bit"
    (entry.path / "train.audio.safetensors").write_bytes(b"half")
    again = load_dataset(spec)
    assert again.fingerprint == first.fingerprint
    assert isinstance(again.train.features, FeatureView)
    assert again.train.features.batch([0, 5]).steps["audio"].shape[0] == 2
