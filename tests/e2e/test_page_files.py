"""Files on the served page: Excel and JSONL there and back, what is refused, accessibility."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("fastapi")

from tests.browser import SIZES, chromium, serious_faults
from tests.conftest import make_reviews
from tests.serving import Running, serving, wait_for
from tests.unit.serving.conftest import trained
from valence.config.data import DataSpec
from valence.inference.predictor import Predictor
from valence.methods.registry import make_spec
from valence.runs.runner import run
from valence.runs.store import RunStore

FFLATE_SHA256 = "b7ca4450b19559a1d50eb381adcee94b82449674be4cd17789d9beba7e6122a1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("served"), "tfidf-lr")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def visit(browser: Any, server: Running, *, size: str = "wide", scheme: str = "light") -> Any:
    page = browser.new_page(viewport=SIZES[size], color_scheme=scheme, accept_downloads=True)
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.locator("#model", has_text="tfidf-lr").wait_for()
    return page


def scored(page: Any, path: Path, target: Path) -> Path:
    """Give a file to the page and save what it gives back."""
    page.set_input_files("#file", path)
    wait_for(lambda: page.evaluate("!document.getElementById('save').disabled"), 30)
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == f"{path.stem}.scored{path.suffix}"
    download.value.save_as(target)
    return target


def rows() -> pd.DataFrame:
    frame = make_reviews(70, seed=4).drop(columns="label")
    frame["when"] = datetime(2026, 1, 31)
    frame.loc[2, "text"] = "=2+2 <b>great</b> & “fine” الغرفة"
    return frame


def test_a_workbook_comes_back_as_one(
    browser: Any, server: Running, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openpyxl")
    frame = rows()
    frame.astype({"text": object}).to_excel(tmp_path / "new.xlsx", index=False)
    import openpyxl

    book = openpyxl.load_workbook(tmp_path / "new.xlsx")
    cell = book.active.cell(row=4, column=1)
    cell.value, cell.data_type = frame.loc[2, "text"], "s"
    book.save(tmp_path / "new.xlsx")
    page = visit(browser, server)
    result = pd.read_excel(scored(page, tmp_path / "new.xlsx", tmp_path / "out.xlsx"),
                           engine="calamine")  # fmt: skip
    assert list(result)[:4] == ["text", "number", "when", "label"]
    assert result["text"].tolist() == frame["text"].tolist()
    assert result["number"].tolist() == frame["number"].tolist()
    assert set(result["when"].astype(str)) == {"2026-01-31"}
    assert result["label"].tolist() == Predictor(folder).predict(frame["text"].tolist())
    assert openpyxl.load_workbook(tmp_path / "out.xlsx").active["A4"].data_type != "f"
    page.close()


def test_lines_of_json_come_back_as_such(
    browser: Any, server: Running, folder: Path, tmp_path: Path
) -> None:
    records = [{"text": text, "deep": {"a": [1, None]}} for text in rows()["text"]]
    path = tmp_path / "new.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    page = visit(browser, server)
    lines = scored(page, path, tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    result = [json.loads(line) for line in lines]
    assert [{k: own[k] for k in ("text", "deep")} for own in result] == records
    texts = [record["text"] for record in records]
    assert [own["label"] for own in result] == Predictor(folder).predict(texts)
    assert sum(result[0][f"prob_{name}"] for name in ("bad", "good", "meh")) == pytest.approx(1)
    page.close()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [("a.xlsx", b"PK\x03\x04 broken", "no Excel workbook"), ("a.pdf", b"%PDF-1.7", "a PDF file"),
     ("a.parquet", b"PAR1....", "a Parquet file"), ("a.csv", b"text\n\x00\x01", "not a text file"),
     ("a.xls", b"\xd0\xcf\x11\xe0\xa1", "an old Excel"),
     ("a.jsonl", b'{"text": "a"}\n[1]', "line 2"),
     ("a.csv", b"text\n", "no rows")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(
    browser: Any, server: Running, name: str, content: bytes, reason: str
) -> None:
    page = visit(browser, server)
    page.set_input_files("#file", {"name": name, "mimeType": "x/y", "buffer": content})
    page.locator("#message", has_text=reason).wait_for()
    assert page.locator("#job").is_hidden()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_is_accessible(
    browser: Any, server: Running, tmp_path: Path, size: str, scheme: str
) -> None:
    page = visit(browser, server, size=size, scheme=scheme)
    assert serious_faults(page) == []
    page.locator("#text").fill("الغرفة was great, the plot awful")
    page.locator("#bars button").first.wait_for()
    rows().to_csv(tmp_path / "new.csv", index=False)
    page.set_input_files("#file", tmp_path / "new.csv")
    wait_for(lambda: page.evaluate("!document.getElementById('save').disabled"), 30)
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    if shots := os.environ.get("VALENCE_SCREENSHOTS"):
        page.screenshot(path=f"{shots}/page-{SIZES[size]['width']}-{scheme}.png", full_page=True)
    page.close()


def test_many_labels_by_keyboard(browser: Any, tmp_path: Path) -> None:
    table = [(f"number {i} {i} or {j}", f"label {i:02}") for i in range(28) for j in range(12)]
    pd.DataFrame(table, columns=["text", "label"]).to_csv(tmp_path / "many.csv", index=False)
    spec = make_spec("tfidf-lr", DataSpec(name=str(tmp_path / "many.csv")))
    store = RunStore(tmp_path / "runs")
    result = run(spec, store=store, keep_model=True)
    with serving(store.path(result.key) / "model") as running:
        page = visit(browser, running, size="phone")
        page.locator("#text").fill("number 7 7 or 3")
        page.locator("#bars button").first.wait_for()
        assert page.locator("#bars button").count() == 8
        page.locator("#all").press("Enter")
        assert page.locator("#bars button").count() == 28
        assert serious_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.close()


def test_the_library_is_what_was_published() -> None:
    content = (files("valence.serving") / "vendor/fflate.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == FFLATE_SHA256
