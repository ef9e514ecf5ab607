"""Report, audit and explanation in a real browser: wide and phone, light and dark, accessible.

``VALENCE_SCREENSHOTS`` names a folder for the pictures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.browser import SIZES, chromium, serious_faults
from tests.conftest import make_reviews
from valence import cli

METHODS = "majority,tfidf-lr,kernel-ridge-text"
PAGES = {"report": "report/report.html", "audit": "audit/audit.html", "explain": "explain.html"}
COMMANDS = (
    ("compare", "--methods", METHODS, "--baseline", "majority", "--seeds", "2"),
    ("train", "rtl.csv", "--method", "tfidf-lr", "--out", "m"),
    ("audit", "reviews.csv", "--fast", "--out", "audit"),
    ("explain", "m", "الغرفة باردة جدا", "a lovely room, but an awful plot", "--html",
     "explain.html", "--data", "rtl.csv"),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages are; real commands made them."""
    here = tmp_path_factory.mktemp("pages")
    frame = make_reviews(400, seed=3)
    again = frame.sample(20, random_state=1).assign(label="meh")
    pd.concat([frame, again]).to_csv(here / "reviews.csv", index=False)
    arabic = [("الغرفة باردة", "bad"), ("طعام رائع", "good")] * 30
    rows = pd.concat([frame, pd.DataFrame(arabic, columns=["text", "label"])])
    rows.to_csv(here / "rtl.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for words in COMMANDS:
            patch.setattr(sys, "argv", ["valence", *words, "--quiet"])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert ended.value.code in (0, None), words
    return here


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def visit(browser: Any, path: Path, *, size: str = "wide", scheme: str = "light") -> Any:
    """The page; its console must stay empty and it must ask the network for nothing."""
    page = browser.new_page(viewport=SIZES[size], color_scheme=scheme)
    page.on("console", lambda message: pytest.fail(message.text) if message.type == "error" else 0)
    page.on("request", lambda one: None if one.url.startswith("file:") else pytest.fail(one.url))
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits(
    browser: Any, folder: Path, name: str, size: str, scheme: str
) -> None:
    page = visit(browser, folder / PAGES[name], size=size, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert serious_faults(page) == []
    if shots := os.environ.get("VALENCE_SCREENSHOTS"):
        page.screenshot(path=f"{shots}/{name}-{SIZES[size]['width']}-{scheme}.png", full_page=True)
    page.close()


def test_the_leaderboard_is_sorted_and_unfolds(browser: Any, folder: Path) -> None:
    page = visit(browser, folder / PAGES["report"])
    names = page.locator(".board tbody tr:not(.more) th")
    before = names.all_inner_texts()
    assert before[-1] == "majority"
    page.get_by_role("button", name="macro-F1", exact=True).first.click()
    page.get_by_role("button", name="macro-F1", exact=True).first.click()
    assert names.all_inner_texts() == before[::-1]
    row = page.locator("tr.more").first
    assert row.is_hidden()
    page.get_by_role("button", name="more of majority").press("Enter")
    assert "accuracy" in row.inner_text()
    page.close()


def test_a_cell_shows_its_cases(browser: Any, folder: Path) -> None:
    page = visit(browser, folder / PAGES["report"])
    best = page.locator(".board tbody th").first.inner_text()
    assert page.locator("select option:checked").inner_text() == best
    cell = page.locator(".matrix button").nth(1)
    words = cell.get_attribute("aria-label")
    cell.press("Enter")
    assert page.locator(".out").inner_text().startswith(words)
    assert page.locator(".cases li").count() > 0
    page.close()


@pytest.mark.parametrize("size", SIZES)
def test_names_of_dots_cross_no_dot(browser: Any, folder: Path, size: str) -> None:
    page = visit(browser, folder / PAGES["report"], size=size)
    boxes = page.evaluate(
        """() => {
          const chart = document.querySelector('[data-chart]');
          const box = (element) => element.getBoundingClientRect().toJSON();
          const of = (selector) => [...chart.querySelectorAll(selector)].map(box);
          return { names: of('.annotation-text'), dots: of('path.point'), chart: box(chart) };
        }"""
    )
    assert (len(boxes["names"]), len(boxes["dots"])) == (3, 3)
    taken = list(boxes["dots"])
    for name in boxes["names"]:
        assert boxes["chart"]["left"] <= name["left"]
        assert name["right"] <= boxes["chart"]["right"]
        for other in taken:
            apart = (
                name["right"] <= other["left"] or other["right"] <= name["left"]
                or name["bottom"] <= other["top"] or other["bottom"] <= name["top"]
            )  # fmt: skip
            assert apart, (name, other)
        taken.append(name)
    page.close()


def test_charts_follow_the_button(browser: Any, folder: Path) -> None:
    page = visit(browser, folder / PAGES["report"])
    color = "getComputedStyle(document.querySelector('[data-chart] .xtitle')).fill"
    light = page.evaluate(color)
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_timeout(500)
    assert page.evaluate(color) != light
    page.close()


def test_findings_of_an_audit_are_open(browser: Any, folder: Path) -> None:
    page = visit(browser, folder / PAGES["audit"])
    text = page.locator("main").inner_text()
    assert page.locator("details").count() == page.locator("details[open]").count() > 0
    assert "One text, several labels" in text
    assert "label-errors" not in text
    page.close()
