"""Papers as tables of comparisons, at the published scale and at that of a small machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from valence.comparison.grid import plan
from valence.comparison.papers import Paper, paper_names, read_paper, table_runs
from valence.comparison.resources import (
    SHAPES,
    model_names,
    sizes_of,
    table_resources,
    where_rows_are,
)
from valence.config.data import DataSpec
from valence.errors import SpecError, UnknownNameError

NAMES = ["almt", "hy-mora", "lstm-han", "self-alignment", "sharprecl"]


def test_the_five_papers_are_known_by_name() -> None:
    assert paper_names() == NAMES
    with pytest.raises(UnknownNameError, match="'sharprecl'"):
        read_paper("sharprcl")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["published", "cpu"])
def test_every_table_plans_and_its_models_are_known(name: str, scale: str) -> None:
    paper, path = read_paper(name)
    tables = table_runs(paper, path, scale)  # type: ignore[arg-type]
    assert len({table.name for table in tables}) == len(paper.tables)
    for table in tables:
        specs = plan(table.comparison)
        assert {model for spec in specs for model in model_names(spec)} <= SHAPES.keys()
        taken = table_resources(table, device="cuda" if scale == "published" else "cpu")
        assert taken.runs == len(specs)
        assert taken.memory_gib is not None
        if table.about.rows is not None:
            assert taken.gpu_hours is not None
            assert taken.cpu_hours is not None
            assert taken.cpu_hours > taken.gpu_hours > 0
        unexplained = [one.name for one in table.scaled_down if not one.reason]
        assert unexplained == []
        assert bool(table.scaled_down) == (scale == "cpu")


def test_the_sensitivity_study_is_of_hy_mora_alone_with_all_seeds() -> None:
    paper, path = read_paper("hy-mora")
    tables = {table.name: table for table in table_runs(paper, path, "published")}
    published = {
        "sst5-2300-temperature": (0.05, 0.1, 0.3, 0.5), "sst5-2300-weight": (0.01, 0.05, 0.1, 0.2),
        "smp2020-2000-temperature": (0.05, 0.1, 0.2, 0.4),
        "smp2020-2000-weight": (0.05, 0.1, 0.2, 0.3),
        "tweeteval-2000-temperature": (0.1, 0.3, 0.5, 0.7),
        "tweeteval-2000-weight": (0.01, 0.03, 0.06, 0.1),
    }  # fmt: skip
    for name, values in published.items():
        comparison = tables[name].comparison
        assert comparison.methods == ("hy-mora",)
        assert list(comparison.sweep.values()) == [values]
        assert len(comparison.seeds) == 5


def test_methods_and_seeds_of_the_command_line_are_differences_too() -> None:
    paper, path = read_paper("sharprecl")
    (table, *_) = table_runs(paper, path, "cpu")
    narrowed = table.narrowed(("majority", "sharprecl"), (45,))
    assert narrowed is not None
    assert narrowed.comparison.methods == ("majority", "sharprecl")
    assert narrowed.comparison.baseline == "majority"
    found = {one.name: one for one in narrowed.scaled_down}
    assert found["methods"].reason == found["seeds"].reason == "given on the command line"
    assert found["seeds"].published == (45, 123, 789, 2024, 1001)
    assert found["train.epochs"].here == 6, "what the file scales down stays named"
    assert table.narrowed(("almt",), ()) is None


def test_rows_that_a_cut_leaves() -> None:
    paper, _ = read_paper("sharprecl")
    trec = paper.tables[0]
    cut = DataSpec(name="trec", imbalance_ratio=20, head_count=600)
    assert sizes_of(cut, trec).train == pytest.approx(1295, abs=2)  # as results.md counts them
    whole = sizes_of(DataSpec(name="trec"), trec)
    assert tuple(whole) == (4842, 537, 500)
    few = DataSpec(name="trec", sample=100, validation_per_class=5, test_per_class=2)
    assert tuple(sizes_of(few, trec)) == (100, 30, 12)


def test_where_rows_are(tmp_path: Path) -> None:
    (tmp_path / "trec").mkdir()
    (tmp_path / "mosi").mkdir()
    (tmp_path / "ch_sims").mkdir()
    (tmp_path / "ch_sims" / "unaligned_39.pkl").touch()
    names = {
        "demo": "here", "trec": "here", "cr": "missing", "sst5": "hub", "smp2020": "hub",
        "kaggle:a/b": "kaggle", "owner/set": "hub", "mosi": "missing", "ch-sims": "here",
    }  # fmt: skip
    assert {name: where_rows_are(DataSpec(name=name), tmp_path) for name in names} == names


def test_a_paper_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("methods: [majority]")
    file = tmp_path / "paper.yaml"
    file.write_text("{title: Own, source: me, tables: [{config: own.yaml}]}")
    paper, path = read_paper(str(file))
    assert paper == Paper(title="Own", source="me", tables=paper.tables)
    assert table_runs(paper, path, "published")[0].comparison.methods == ("majority",)
    with pytest.raises(SpecError, match=r"has no own-cpu\.yaml for a small machine"):
        table_runs(paper, path, "cpu")
    with pytest.raises(SpecError, match=r"gone\.yaml cannot be read"):
        read_paper(str(tmp_path / "gone.yaml"))


def test_large_runs_take_more_of_everything() -> None:
    paper, path = read_paper("sharprecl")
    for published, small in zip(
        table_runs(paper, path, "published"), table_runs(paper, path, "cpu"), strict=True
    ):
        large = table_resources(published, device="cpu")
        little = table_resources(small, device="cpu")
        assert large.memory_gib > little.memory_gib > 0.1  # type: ignore[operator]
        assert large.cpu_hours > 20 * little.cpu_hours  # type: ignore[operator]
