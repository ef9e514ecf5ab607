"""Every format of a table is read to the same rows: whole, in batches, and to be scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.sheets import write_ods
from valence.data.formats import FORMATS
from valence.data.tables import read_batches, read_table
from valence.errors import DataError
from valence.inference.bulk.readers import open_source

ROWS = pd.DataFrame(
    {"text": ['a "good" day', "zwei\nZeilen", "三"], "label": ["pos", "neg", "pos"], "n": [1, 2, 3]}
)

WRITERS: dict[str, Callable[[Path], None]] = {
    ".csv": lambda path: ROWS.to_csv(path, index=False),
    ".tsv": lambda path: ROWS.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda path: ROWS.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda path: ROWS.to_parquet(path, index=False),
    ".xlsx": lambda path: ROWS.to_excel(path, index=False),
    ".ods": lambda path: write_ods(path, {"Sheet1": [list(ROWS), *ROWS.to_numpy().tolist()]}),
}


def test_every_format_has_a_case() -> None:
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_the_same(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path)
    whole = read_table(path)
    assert whole.astype(str).to_dict("list") == ROWS.astype(str).to_dict("list")
    parts = list(read_batches(path, 2))
    assert [len(part) for part in parts] == [2, 1]
    assert pd.concat(parts)["text"].tolist() == ROWS["text"].tolist()
    scored = list(open_source(str(path)).parts(2))
    assert [scored[0].names, sum(map(len, scored))] == [list(ROWS.columns), 3]
    assert [value for part in scored for value in part.values(0)] == ROWS["text"].tolist()


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_encoding_is_read_or_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path)
    if not FORMATS[suffix].has_encoding:
        with pytest.raises(DataError, match="has its own encoding"):
            read_table(path, "latin-1")
        return
    latin = ROWS.assign(text="ä")
    content = {
        ".csv": latin.to_csv(index=False), ".tsv": latin.to_csv(index=False, sep="\t"),
        ".jsonl": latin.to_json(orient="records", lines=True, force_ascii=False),
    }[suffix]  # fmt: skip
    path.write_bytes(content.encode("latin-1"))
    assert read_table(path, "latin-1")["text"].tolist() == ["ä"] * 3
    with pytest.raises(DataError, match=r"not UTF-8[;,]"):
        read_table(path)
