"""The site builds without a warning and without a network, and nothing public is missing."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

pytest.importorskip("sphinx", reason="the extra docs is not installed")
pytest.importorskip("furo")
pytest.importorskip("myst_parser")

import valence
from tests.conftest import ROOT
from valence.cli import app
from valence.data.catalog import DATASETS
from valence.losses.table import CONTRASTS, INTENSITY_LOSSES, LOSSES
from valence.methods.registry import METHODS
from valence.models.encoder_cards import ENCODERS
from valence.models.fusion import FUSIONS
from valence.models.heads import HEADS
from valence.models.pooling import POOLINGS

# Nothing is fetched: a request would go to a proxy that is not there.
NOWHERE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "ALL_PROXY")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    words = ["-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html", "docs", str(out)]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, **NOWHERE},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


def text(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_pages_fetch_nothing(site: Path) -> None:
    for path in site.glob("*.html"):
        found = re.findall(
            r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:[^\"]*)|<link[^>]*href=\"(https?:[^\"]*)",
            path.read_text(encoding="utf-8"),
        )
        assert not found, (path.name, found)
    for style in site.glob("_static/**/*.css"):
        assert not re.search(r"url\(['\"]?https?:", style.read_text(encoding="utf-8")), style


def test_every_mark_is_filled(site: Path) -> None:
    for path in site.glob("*.html"):
        assert "generated:" not in path.read_text(encoding="utf-8"), path.name


def test_every_public_name_is_documented(site: Path) -> None:
    page = text(site, "api")
    assert [n for n in valence.__all__ if f'id="valence.{n}"' not in page] == []
    for member in ("SentimentClassifier.fit", "Predictor.predict_proba", "RunSpec.override"):
        assert f'id="valence.{member}"' in page, member


def test_every_command_and_option_is_documented(site: Path) -> None:
    page = text(site, "cli")

    def check(command: object, name: str) -> None:
        section = re.search(rf'<section id="{name.replace(" ", "-")}">(.*?)</section>', page, re.S)
        assert section, name
        for one in command.params:  # type: ignore[attr-defined]
            if one.opts[0].startswith("--") and not one.hidden:
                assert one.opts[0] in section[1], (name, one.opts)
        for word, child in getattr(command, "commands", {}).items():
            check(child, f"{name} {word}")

    check(typer.main.get_command(app), "valence")


def test_every_method_part_and_corpus_is_there(site: Path) -> None:
    page = text(site, "methods")
    assert [n for n in METHODS if f'id="{n}"' not in page] == []
    tables = {
        "loss": LOSSES, "intensity-loss": INTENSITY_LOSSES, "contrast": CONTRASTS,
        "pooling": POOLINGS, "head": HEADS, "fusion": FUSIONS,
    }  # fmt: skip
    for kind, table in tables.items():
        assert [n for n in table if f'id="{kind}-{n}"' not in page] == [], kind
    corpora = text(site, "datasets")
    assert [n for n in DATASETS if f">{n}</span>" not in corpora] == []


def test_every_encoder_has_its_row_with_license_and_source(site: Path) -> None:
    page = html.unescape(text(site, "encoders")).replace("’", "'")
    for name, card in ENCODERS.items():
        assert f">{name}</" in page, name
        rows = [row for row in page.split("<tr ") if f">{card.hub_name or name}<" in row]
        assert any(card.license in row and card.reads in row for row in rows), name
        assert card.source in page, name


def test_every_page_can_be_found(site: Path) -> None:
    contents = text(site, "index")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert [name for name in pages if f'href="{name}.html"' not in contents] == []
