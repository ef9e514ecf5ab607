"""Tables in a pipe: whole, and each named where there are several."""

from __future__ import annotations

import pytest

from valence.cli.tables import print_table


def test_one_of_several_tables_is_named_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        print_table(["group", "score"], [["de", "0.5"]], title=name, one_of_several=True)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    heads = ["table", "group", "score"]
    assert lines == [heads, ["a", "de", "0.5"], heads, ["b", "de", "0.5"]]


def test_a_single_table_has_no_title_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["group", "score"], [["de", "0.5"]], title="a")
    assert capsys.readouterr().out == "group\tscore\nde\t0.5\n"
