"""The page in a real browser: a text, a file, a key; light, dark and phone.

``VALENCE_SCREENSHOTS`` names a folder for the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright import sync_api as api

from tests.browser import chromium
from tests.conftest import make_reviews
from tests.serving import Running, serving, wait_for
from tests.unit.serving.conftest import careful, trained
from tests.unit.serving.conftest import numeric_model as numeric_model
from tests.unit.serving.test_http import explain
from valence.inference.predictor import Predictor
from valence.serving import explaining
from valence.serving.settings import digest

SEEN_MS = 30_000
SIZES = {
    "light": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 375, "height": 740}, "color_scheme": "light"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("served"), "tfidf-lr")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch, serving(folder) as running:
        patch.setattr(explaining, "find_explainer", lambda: explain)
        yield running


def visit(
    browser: Any, server: Running, size: str = "light", path: str = "/"
) -> tuple[Any, list[str]]:
    """The page, and what its console complains of."""
    page = browser.new_page(**SIZES[size], accept_downloads=True)
    page.set_default_timeout(SEEN_MS)
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}{path}")
    return page, complaints


def until(page: Any, expression: str) -> None:
    """Playwright's own waiting evaluates strings, which the page's policy forbids."""
    wait_for(lambda: page.evaluate(expression), SEEN_MS / 1000)


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("VALENCE_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize("size", SIZES)
def test_a_text_and_a_file(
    browser: Any, server: Running, folder: Path, tmp_path: Path, size: str
) -> None:
    page, complaints = visit(browser, server, size)
    picture(page, f"{size}-empty")
    text = "The staff was lovely and the food 🍜 was great, but the room was cold"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link to the text
    page.keyboard.type(text)
    bars = page.locator("#bars button")
    bars.first.wait_for()
    shares = Predictor(folder).predict_proba([text])[0]
    assert bars.count() == 3
    assert bars.first.locator(".value").inner_text() == f"{100 * shares.max():.1f}%"
    page.locator("#words mark").first.wait_for()
    assert page.locator("#words").inner_text() == text
    assert page.locator("#words mark").nth(7).inner_text() == "🍜"
    assert "Supported most by: “The”" in page.locator("#summary").inner_text()
    assert page.locator("#examples li").count() == 2
    page.locator("#bars button", has_text="meh").press("Enter")
    until(page, "document.getElementById('target').textContent === 'meh'")

    frame = make_reviews(130, seed=4).drop(columns="label")
    frame.loc[3, "text"] = 'a "quoted" one,\nover two lines'
    frame.loc[7, "text"] = ""
    frame.to_csv(tmp_path / "new.csv", index=False)
    page.set_input_files("#file", tmp_path / "new.csv")
    until(page, "!document.getElementById('save').disabled")
    assert "129 of 129 rows · 1 without a text" in page.locator("#count").inner_text()
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "new.scored.csv"
    download.value.save_as(tmp_path / "scored.csv")
    scored = pd.read_csv(tmp_path / "scored.csv")
    assert list(scored) == ["text", "number", "label", "prob_bad", "prob_good", "prob_meh"]
    assert scored["number"].tolist() == frame["number"].tolist()
    assert scored.loc[3, "text"] == frame.loc[3, "text"]
    assert pd.isna(scored.loc[7, "label"])
    kept = scored.drop(index=7)
    expected = Predictor(folder).predict(kept["text"].tolist())
    assert kept["label"].tolist() == expected

    counts = {
        bar.locator(".name").inner_text(): int(bar.locator(".value").inner_text())
        for bar in page.locator("#histogram button").all()
    }
    assert counts == pd.Series(expected).value_counts().to_dict()
    assert page.locator("#rows tr").count() == 50
    page.locator("#histogram button", has_text="bad").click()
    assert set(page.locator("#rows tr td:first-child").all_inner_texts()) == {"bad"}
    picture(page, f"{size}-both")
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "nothing is pushed out of the window"
    assert complaints == []
    page.close()


def test_a_model_that_abstains_gives_no_label(browser: Any, folder: Path, tmp_path: Path) -> None:
    model = careful(folder, tmp_path / "careful")
    frame = make_reviews(40, seed=4).drop(columns="label")
    frame.to_csv(tmp_path / "new.csv", index=False)
    expected = Predictor(model).predict(frame["text"].tolist())
    with serving(model) as running:
        page, complaints = visit(browser, running)
        page.locator("#text").fill(frame["text"][expected.index("")])
        page.locator("#bars button").first.wait_for()
        assert "the model abstains" in page.locator("#verdict").inner_text()
        picture(page, "abstains")
        page.set_input_files("#file", tmp_path / "new.csv")
        until(page, "!document.getElementById('save').disabled")
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "scored.csv")
        page.locator("#histogram button", has_text="(no label)").click()
        assert page.locator("#rows tr").count() == expected.count("")
        page.close()
    scored = pd.read_csv(tmp_path / "scored.csv", keep_default_na=False)
    assert scored["label"].tolist() == expected
    assert complaints == []


def test_a_model_of_numbers_shows_numbers(
    browser: Any, numeric_model: Path, tmp_path: Path
) -> None:
    frame = make_reviews(30, seed=4).drop(columns="label")
    frame.to_csv(tmp_path / "new.csv", index=False)
    expected = Predictor(numeric_model).columns(frame["text"].tolist())["intensity"]
    with serving(numeric_model) as running:
        page, complaints = visit(browser, running)
        page.locator("#text").fill(frame["text"][0])
        until(page, "document.getElementById('verdict').textContent.includes('intensity')")
        assert page.locator("#verdict").inner_text().startswith(f"{expected[0]:.3f}")
        assert page.locator("#bars button").count() == 0
        assert page.locator("#model").inner_text().endswith("a number")
        page.set_input_files("#file", tmp_path / "new.csv")
        until(page, "!document.getElementById('save').disabled")
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "scored.csv")
        picture(page, "numeric")
    scored = pd.read_csv(tmp_path / "scored.csv")
    assert list(scored) == ["text", "number", "intensity"]
    assert scored["intensity"].tolist() == pytest.approx(expected, abs=1e-4)
    assert complaints == []


def test_a_file_is_dropped_and_another_column_chosen(browser: Any, server: Running) -> None:
    page, complaints = visit(browser, server)
    page.locator("#model", has_text="tfidf-lr").wait_for()
    transfer = page.evaluate_handle(
        """() => {
          const data = new DataTransfer();
          const lines = ["id;said;title", "1;awful terrible bad;great", "2;great lovely;awful"];
          data.items.add(new File([lines.join("\\r\\n")], "drop.csv", { type: "text/csv" }));
          return data;
        }"""
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    labels = page.locator("#rows tr td:first-child")
    until(page, "document.querySelectorAll('#rows tr').length === 2")
    assert page.locator("#column").input_value() == "1", "the longest texts"
    assert labels.all_inner_texts() == ["bad", "good"]
    page.select_option("#column", label="title")
    until(page, "document.querySelector('#rows td')?.textContent === 'good'")
    assert complaints == []
    page.close()


def test_a_locked_server_asks_for_its_key(browser: Any, folder: Path) -> None:
    with serving(folder, keys=(digest(b"open-sesame"),)) as locked:
        page, _ = visit(browser, locked)
        page.locator("#key").wait_for()
        picture(page, "key")
        page.locator("#key").fill("not-this-one")
        page.keyboard.press("Enter")
        page.locator("#message", has_text="is unknown").wait_for()
        page.locator("#key").fill("open-sesame")
        page.keyboard.press("Enter")
        page.locator("#lock").wait_for(state="hidden")
        page.locator("#text").fill("great lovely food")
        page.locator("#verdict", has_text="good").wait_for()
        page.close()


def test_a_model_that_cannot_explain_says_so(browser: Any, server: Running) -> None:
    page, _ = visit(browser, server)
    page.locator("#text").fill("explode")
    page.locator("#unexplained", has_text="no gradients").wait_for()
    picture(page, "unexplained")
    assert page.locator("#why").is_hidden()
    page.locator("#text").fill("")
    page.locator("#result").wait_for(state="hidden")
    page.close()


def test_markup_in_a_text_stays_text(browser: Any, server: Running) -> None:
    page, complaints = visit(browser, server)
    page.locator("#text").fill("<img src=x onerror=alert(1)> <b>great</b>")
    page.locator("#words mark").first.wait_for()
    assert page.locator("#words img, #words b").count() == 0
    assert complaints == []
    page.close()


def test_the_api_reference_lists_every_address_and_sends_requests(
    browser: Any, server: Running
) -> None:
    page, complaints = visit(browser, server, path="/docs")
    card = page.locator("section", has=page.get_by_role("heading", name="POST /predict"))
    card.wait_for()
    paths = server.ask("/openapi.json").json["paths"]
    assert page.locator("#paths h2").count() == sum(len(methods) for methods in paths.values())
    assert "inputs (required)" in card.inner_text()
    assert "``" not in page.locator("#paths").inner_text()
    card.get_by_role("button", name="Send").click()
    result = card.locator("pre")
    api.expect(result).to_contain_text("200\n")
    assert '"score"' in result.inner_text()
    assert complaints == []


def test_the_theme_is_that_of_the_button_once_it_was_pressed(browser: Any, server: Running) -> None:
    page, complaints = visit(browser, server)
    theme = "document.documentElement.dataset.theme"
    until(page, f"{theme} === 'light'")
    page.locator("#theme").click()
    until(page, f"{theme} === 'dark'")
    page.reload()
    until(page, f"{theme} === 'dark'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert complaints == []
    page.close()
