"""The page in a browser: labels by keyboard, two people, a killed server, all sizes."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.browser import SIZES, serious_faults
from tests.label.labelserver import label_server
from valence.labeling.store import LabelStore

WORDS = ("--labels", "food,room,staff", "--encoder", "none")
ANY_TEXT = "#text[data-row]:not([data-row=''])"
CLOCK = """
() => {
  window.waits = [];
  let pressed = 0;
  window.addEventListener("keydown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (!pressed || !document.getElementById("text").dataset.row) return;
    window.waits.push(performance.now() - pressed);
    pressed = 0;
  }).observe(document.getElementById("text"), { attributes: true, attributeFilter: ["data-row"] });
}
"""


def opened(browser: Any, url: str, person: str, **options: Any) -> Any:
    # Conditions are evaluated in the page, which its content security policy forbids.
    page = browser.new_context(bypass_csp=True, **options).new_page()
    page.goto(f"{url}?person={person}")
    page.wait_for_selector(ANY_TEXT)
    return page


def press(page: Any, key: str) -> None:
    """Press a key and wait for the next text."""
    before = page.get_attribute("#text", "data-row")
    page.keyboard.press(key)
    page.wait_for_function(
        f"!['', {before!r}].includes(document.getElementById('text').dataset.row)"
    )


def stored(path: Path, page: Any) -> LabelStore:
    page.wait_for_function("localStorage.getItem('valence-unsent') === '[]'")
    return LabelStore(path)


def key_of(topics: pd.DataFrame, text: str) -> str:
    label = topics.set_index("text").loc[text, "label"]
    return str(["food", "room", "staff"].index(label) + 1)


@pytest.mark.slow
def test_two_hundred_labels_by_keyboard(
    browser: Any, pool: Path, topics: pd.DataFrame, tmp_path: Path
) -> None:
    with label_server(tmp_path, str(pool), "--out", "labels.db", *WORDS) as server:
        page = opened(browser, server.url, "ann")
        page.evaluate(CLOCK)
        for _ in range(200):
            press(page, key_of(topics, page.inner_text("#text")))
        waits = page.evaluate("window.waits")
        assert len(waits) == 200
        assert statistics.median(waits) <= 100
        store = stored(tmp_path / "labels.db", page)
        decisions = store.decisions()
        assert len(decisions) == 200
        assert len({one.row for one in decisions}) == 200
        truth = topics["label"].to_dict()
        assert all(truth[one.row] == one.label for one in decisions)
        assert all(one.seconds is not None and one.person == "ann" for one in decisions)
        page.wait_for_function("document.getElementById('facts').innerText.includes('interval')")
        assert {one.chosen_by for one in decisions} == {"random", "tail-first"}


def test_two_people_get_different_rows(browser: Any, pool: Path, tmp_path: Path) -> None:
    with label_server(tmp_path, str(pool), "--out", "labels.db", *WORDS) as server:
        pages = [opened(browser, server.url, name) for name in ("ann", "ben")]
        for i in range(40):
            press(pages[i % 2], "1")
        store = stored(tmp_path / "labels.db", pages[0])
        stored(tmp_path / "labels.db", pages[1])
        rows = [one.row for one in store.decisions()]
        assert len(rows) == len(set(rows)) == 40
        assert {one.person for one in store.decisions()} == {"ann", "ben"}


def test_shared_rows_give_an_agreement(browser: Any, pool: Path, tmp_path: Path) -> None:
    words = (*WORDS, "--shared", "4")
    with label_server(tmp_path, str(pool), "--out", "labels.db", *words) as server:
        pages = [opened(browser, server.url, name) for name in ("ann", "ben")]
        for page in pages:
            for i in range(20):
                press(page, "12"[i % 2])
            stored(tmp_path / "labels.db", page)
        agreement = server.call("/state?person=ann")["agreement"]
        assert agreement["rows"] == 4
        assert agreement["people"] == 2


def test_a_killed_server_loses_nothing(browser: Any, pool: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with label_server(tmp_path, str(pool), "--out", "labels.db", *WORDS) as server:
        page = opened(browser, server.url, "ann")
        for _ in range(10):
            press(page, "1")
        stored(path, page)
        server.kill()
        page.keyboard.press("2")  # nobody answers: it stays in the page
        page.wait_for_selector("#message:not([hidden])")
        assert "not stored yet" in page.inner_text("#message")
        port = server.port
    with label_server(tmp_path, "labels.db", "--encoder", "none", port=port):
        page.reload()
        page.wait_for_selector(ANY_TEXT)
        decisions = stored(path, page).decisions()
        assert [one.label for one in decisions] == ["food"] * 10 + ["room"]
        press(page, "1")
        rows = [one.row for one in stored(path, page).decisions()]
        assert len(rows) == len(set(rows)) == 12


def test_undo_skip_note_and_suggestion(browser: Any, pool: Path, tmp_path: Path) -> None:
    with label_server(tmp_path, str(pool), "--out", "labels.db", *WORDS) as server:
        page = opened(browser, server.url, "ann")
        first = page.get_attribute("#text", "data-row")
        press(page, "2")
        press(page, "u")
        assert page.get_attribute("#text", "data-row") == first
        page.keyboard.press("h")
        assert page.is_visible("#hint")
        page.keyboard.press("n")
        page.keyboard.type("ironic 1")
        page.keyboard.press("Enter")
        press(page, "1")
        press(page, "s")
        press(page, "x")
        kinds = [(one.action, one.label, one.note) for one in
                 stored(tmp_path / "labels.db", page).decisions()]  # fmt: skip
        assert kinds == [
            ("label", "room", ""), ("undo", None, ""), ("label", "food", "ironic 1"),
            ("skip", None, ""), ("unsure", None, ""),
        ]  # fmt: skip


def test_search_and_fifty_labels(browser: Any, pool: Path, tmp_path: Path) -> None:
    names = ",".join(f"label {i}" for i in range(50))
    words = ("--labels", names, "--encoder", "none")
    with label_server(tmp_path, str(pool), "--out", "labels.db", *words) as server:
        page = opened(browser, server.url, "ann")
        page.keyboard.press("/")
        page.keyboard.type("no17")
        page.click("#hits button")
        page.wait_for_function("document.getElementById('text').innerText.includes('no17')")
        page.keyboard.press("f")
        page.keyboard.type("37")
        shown = page.locator("#labels button:visible")
        assert shown.count() == 1
        page.keyboard.press("Escape")
        assert shown.count() == 50
        page.keyboard.press("f")
        page.keyboard.type("37")
        page.keyboard.press("Enter")
        page.wait_for_function("!document.getElementById('text').innerText.includes('no17')")
        (decision,) = stored(tmp_path / "labels.db", page).decisions()
        assert (decision.label, decision.chosen_by, decision.row) == ("label 37", "search", 17)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_accessible(
    browser: Any, pool: Path, tmp_path: Path, size: str, scheme: str
) -> None:
    with label_server(tmp_path, str(pool), "--out", "labels.db", *WORDS) as server:
        page = opened(browser, server.url, "ann", viewport=SIZES[size], color_scheme=scheme)
        assert serious_faults(page) == []
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SIZES[size]["width"]


def test_the_page_obeys_its_own_policy(browser: Any, pool: Path, tmp_path: Path) -> None:
    with label_server(tmp_path, str(pool), "--out", "labels.db", *WORDS) as server:
        page = browser.new_page()
        faults: list[str] = []
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url)
        page.fill("#name", "ann")
        page.press("#name", "Enter")
        page.wait_for_selector(ANY_TEXT)
        page.keyboard.press("1")
        page.wait_for_selector("#counts b:text-is('1')")
        assert faults == []


def test_text_from_right_to_left(browser: Any, tmp_path: Path) -> None:
    texts = [f"الفيلم جميل جدا {i}" for i in range(30)]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "arabic.csv", index=False)
    words = ("--labels", "إيجابي,سلبي", "--encoder", "none")
    with label_server(tmp_path, "arabic.csv", "--out", "labels.db", *words) as server:
        page = opened(browser, server.url, "ann")
        style = "getComputedStyle(document.getElementById('text')).direction"
        assert page.evaluate(style) == "rtl"
