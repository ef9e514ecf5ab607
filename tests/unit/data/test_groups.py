"""Groups of rows: folders or a column, which are taken, and splits that do not depend on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.catalog import DATASETS
from valence.data.groups import UNNAMED, transfer_sets
from valence.data.sources import load_dataset
from valence.errors import DataError, SpecError, UnknownNameError, ValenceError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reviews")
    for number, name in enumerate(("de", "en", "sw")):
        (root / name).mkdir()
        make_reviews(40 + number, seed=number).to_csv(root / name / "train.csv", index=False)
        make_reviews(20, seed=9 + number).to_csv(root / name / "test.csv", index=False)
    return root


def test_one_folder_per_language(folder: Path) -> None:
    data = load_dataset(DataSpec(name=str(folder)), seed=1)
    assert data.group == "language"
    assert data.group_names() == ("de", "en", "sw")
    names = data.groups(data.test)
    assert names is not None
    assert dict(zip(*np.unique(names, return_counts=True), strict=True)) == {
        "de": 20, "en": 20, "sw": 20,
    }  # fmt: skip
    assert data.test.ids[0] == "test-de-0"
    assert len(set(data.train.ids) | set(data.validation.ids)) == 40 + 41 + 42


def test_a_language_has_the_same_rows_whoever_stands_beside_it(folder: Path) -> None:
    whole = load_dataset(DataSpec(name=str(folder)), seed=1)
    alone = load_dataset(DataSpec(name=str(folder), groups=("en",)), seed=1)
    moved = load_dataset(DataSpec(name=str(folder), train_groups=("en",)), seed=1)
    names = whole.groups(whole.train)
    assert alone.train.ids.tolist() == whole.train.ids[names == "en"].tolist()
    assert moved.train.ids.tolist() == alone.train.ids.tolist()
    assert moved.validation.ids.tolist() == alone.validation.ids.tolist()
    assert set(moved.groups(moved.validation).tolist()) == {"en"}
    assert len(moved.test) == 60
    assert len(alone.test) == 20


def test_trained_on_one_and_tested_on_another(folder: Path) -> None:
    spec = DataSpec(name=str(folder), groups=("sw",), train_groups=("de",))
    data = load_dataset(spec, seed=1)
    assert set(data.groups(data.train).tolist()) == {"de"}
    assert set(data.groups(data.test).tolist()) == {"sw"}


def test_a_draw_is_of_the_chosen_groups(folder: Path) -> None:
    data = load_dataset(DataSpec(name=str(folder), groups=("en",), sample=20), seed=1)
    assert len(data.train) == 20
    assert all(name.startswith("train-en-") for name in data.train.ids)


def test_any_column_and_rows_without_a_group(tmp_path: Path) -> None:
    rows = make_reviews(60).assign(domain=["hotel", "school", None] * 20)
    rows.to_csv(tmp_path / "r.csv", index=False)
    data = load_dataset(DataSpec(name=str(tmp_path / "r.csv"), group="domain"), seed=1)
    assert data.group_names() == ("hotel", "school", UNNAMED)
    assert any("without domain" in note for note in data.notes)
    only = load_dataset(
        DataSpec(name=str(tmp_path / "r.csv"), group="domain", groups=("hotel",)), seed=1
    )
    assert len(only.train) + len(only.validation) + len(only.test) == 20
    assert load_dataset(DataSpec(name=str(tmp_path / "r.csv")), seed=1).group == ""


def test_messages(folder: Path, reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown language 'dee'; did you mean 'de'"):
        load_dataset(DataSpec(name=str(folder), groups=("dee",)))
    with pytest.raises(DataError, match=r"no column 'language' for groups.*--group"):
        load_dataset(DataSpec(name=str(reviews), groups=("de",)))
    with pytest.raises(DataError, match=r"no column 'nummer'.*did you mean 'number'"):
        load_dataset(DataSpec(name=str(reviews), group="nummer"))
    for name, splits in {"a": ("train", "test"), "b": ("train",)}.items():
        (tmp_path / name).mkdir()
        for split in splits:
            make_reviews(20).to_csv(tmp_path / name / f"{split}.csv", index=False)
    with pytest.raises(DataError, match="b has train, but a has train, test"):
        load_dataset(DataSpec(name=str(tmp_path)))
    (tmp_path / "b" / "test.csv").write_text("text,label\n")
    data = load_dataset(DataSpec(name=str(tmp_path)))
    assert set(data.groups(data.test).tolist()) == {"a"}
    (tmp_path / "b" / "test.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        load_dataset(DataSpec(name=str(tmp_path)))


def test_transfer_sets(folder: Path, reviews: Path) -> None:
    spec = DataSpec(name=str(folder))
    data = load_dataset(spec)
    matrix = transfer_sets(spec, data, "matrix")
    assert [s.train_groups for s in matrix] == [("de",), ("en",), ("sw",)]
    left_out = transfer_sets(spec, data, "leave-one-out")
    assert [s.train_groups for s in left_out] == [None, ("en", "sw"), ("de", "sw"), ("de", "en")]
    few = transfer_sets(spec, data, "leave-one-out", (4,))[len(left_out) :]
    assert [s.group_rows for s in few[::2]] == [{"de": 4}, {"en": 4}, {"sw": 4}]
    assert [s.train_groups for s in few[:2]] == [("de", "en", "sw"), ("de",)]
    with pytest.raises(SpecError, match="leave-one-out"):
        transfer_sets(spec, data, "matrix", (4,))
    with pytest.raises(SpecError, match="train_groups"):
        transfer_sets(spec.model_copy(update={"train_groups": ("de",)}), data, "matrix")
    plain = DataSpec(name=str(reviews))
    with pytest.raises(DataError, match="needs two"):
        transfer_sets(plain, load_dataset(plain), "matrix")


def test_few_labeled_rows_of_a_group(folder: Path) -> None:
    """So many of a group in training and validation together, and the rest as without."""
    whole = load_dataset(DataSpec(name=str(folder), cut_seed=1))
    data = load_dataset(DataSpec(name=str(folder), cut_seed=1, group_rows={"sw": 12}))
    had = whole.groups(whole.train) == "sw"
    left, held = data.groups(data.train) == "sw", data.groups(data.validation) == "sw"
    assert left.sum() + held.sum() == 12
    assert 0 < held.sum() < left.sum()
    drawn = {*data.train.ids[left], *data.validation.ids[held]}
    assert len(drawn) == 12
    assert drawn < set(whole.train.ids[had])
    assert set(data.train.ids[~left]) == set(whole.train.ids[~had])
    before = whole.groups(whole.validation) != "sw"
    assert set(data.validation.ids[~held]) == set(whole.validation.ids[before])
    np.testing.assert_array_equal(data.test.ids, whole.test.ids)
    row = int(np.flatnonzero(left)[0])
    source = list(whole.train.ids).index(data.train.ids[row])
    assert data.train.texts[row] == whole.train.texts[source]
    assert data.train.labels[row] == whole.train.labels[source]
    other = load_dataset(DataSpec(name=str(folder), cut_seed=2, group_rows={"sw": 12}))
    again = {*other.train.ids[other.groups(other.train) == "sw"]}
    assert again != {*data.train.ids[left]}


def test_rows_of_a_group_that_cannot_be_limited(folder: Path, reviews: Path) -> None:
    for spec, text in (
        (DataSpec(name=str(folder), group_rows={"xx": 4}), "'xx'"),
        (DataSpec(name=str(folder), group_rows={"sw": 4000}), "choose a number between"),
        (DataSpec(name=str(reviews), group_rows={"sw": 4}), "--group"),
    ):
        with pytest.raises(ValenceError, match=text):
            load_dataset(spec)


def test_groups_are_part_of_what_names_a_result(tmp_path: Path) -> None:
    """Rows whose languages were relabeled give another table by language."""
    rows, found = make_reviews(80), set()
    for languages in ([None, None], ["en", "de"], ["de", "en"]):
        path = tmp_path / "rows.csv"
        named = rows if languages[0] is None else rows.assign(language=languages * 40)
        named.to_csv(path, index=False)
        found.add(load_dataset(DataSpec(name=str(path), cut_seed=1)).fingerprint)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("name", "groups", "test_rows"),
    [("nusax", 3, 1200), ("umsab", 6, 5220), ("arabic_tweets", 0, 2996)],
)
def test_cards_fit_the_real_corpora(
    real_data: Path, name: str, groups: int, test_rows: int
) -> None:
    data = load_dataset(DataSpec(name=name), data_dir=real_data)
    assert data.classes == DATASETS[name].classes
    assert len(data.group_names()) == groups
    assert len(data.test) == test_rows
