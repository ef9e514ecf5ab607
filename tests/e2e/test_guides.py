"""Every command and every piece of Python of the guides works as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.clips import make_clip
from tests.conftest import ROOT, make_reviews
from tests.features import mmsa, write_mmsa
from tests.pages import blocks, commands, give, page, serve_and_ask
from valence.config.data import DataSpec
from valence.data.sources import load_dataset
from valence.methods.registry import make_spec

GUIDES = (
    "index", "start", "data", "compare", "train", "tune", "multimodal", "choose", "protocol",
    "datasets", "papers", "encoders",
)  # fmt: skip
GIVEN = [(name, line) for name in GUIDES for line in commands(f"docs/{name}.md")]
PYTHON = [(name, code) for name in GUIDES for code in blocks(f"docs/{name}.md", "python")]
TORCH = {"lora", "lora-balanced", "almt", "text-only"}
NEEDS = {"tune": "optuna", "features": "av", "export": "onnxscript", "serve": "fastapi"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: one's own rows, clips and files of settings."""
    place = tmp_path_factory.mktemp("guides")
    make_reviews(140).to_csv(place / "reviews.csv", index=False)
    make_reviews(30, seed=2).to_csv(place / "labelled.csv", index=False)
    for name, fence in (("own.yaml", "compare"), ("space.yaml", "tune")):
        (place / name).write_text(blocks(f"docs/{fence}.md", "yaml")[0], encoding="utf-8")
    (place / "models").mkdir()
    spec = make_spec("tfidf-lr", DataSpec(name="reviews.csv"))
    (place / "models/spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    write_mmsa(place / "unaligned_50.pkl", mmsa(3))
    return place


@pytest.fixture(scope="module")
def clips(folder: Path) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    (table,) = [t for t in blocks("docs/multimodal.md", "text") if t.startswith("clip,")]
    (folder / "clips.csv").write_text(table, encoding="utf-8")
    for i, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        make_clip(folder / name, pitch=100 + 40 * i, seconds=0.5)


def test_every_command_is_of_a_known_kind() -> None:
    assert len(GIVEN) > 40
    for name, line in GIVEN:
        assert line.split()[0] in {"valence", "pip", "curl"}, (name, line)
        if "configs/" in line:
            assert (ROOT / line.split("--config ")[1].split()[0]).exists(), line


@pytest.mark.parametrize(("name", "line"), [g for g in GIVEN if g[1].startswith("valence")])
def test_command(
    name: str, line: str, folder: Path, tiny_encoder: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They run in the order of the pages, since some make what others use."""
    words = shlex.split(line)
    pytest.importorskip(NEEDS.get(words[1], "valence"))
    if name == "multimodal":
        request.getfixturevalue("clips")
    monkeypatch.chdir(ROOT if "configs/" in line else folder)
    if words[1] == "serve":
        curls = [c for n, c in GIVEN if n == name and c.startswith("curl")]
        code, statuses = serve_and_ask(line, curls, monkeypatch)
        assert statuses == [200] * len(curls)
    else:
        code = give([*words, *_smaller(words, str(tiny_encoder))], monkeypatch)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "Traceback" not in shown.err
    if "--dry-run" in words:
        assert len(shown.out.splitlines()) > 2


def _smaller(words: list[str], encoder: str) -> list[str]:
    """The same command at a size for tests."""
    if words[1:] == ["compare"] or any("configs/" in word for word in words):
        return ["--dry-run"]  # of the built-in corpus, another test runs it
    if words[1] == "reproduce":
        return [] if "--plan" in words else ["--plan"]  # another test runs it
    told: list[str] = []
    if words[1:] == ["compare", "reviews.csv"]:
        told += ["--methods", "majority,tfidf-lr", "--seeds", "1"]
    elif words[1] == "compare":
        told += ["--encoder", encoder, "--set", "train.epochs=1"]
        told += ["--set", "data.sample=80"] if "data.sample=800" in words else []
        told += ["--seeds", "1"] if "--sweep" not in words and "--seeds" in words else []
    if words[1] == "tune":
        told += ["--trials", "2"]
    if words[1] in ("train", "tune") and TORCH & set(words):
        told += ["--encoder", encoder, "--set", "train.epochs=1"]
    if words[1] == "tune" and "--set" in told:
        told = told[: told.index("--set")]  # its trials have --epochs
    return told


# what the Python of a page prints
PRINTS = {
    "compare": r"\[\('majority', 0\.\d+\), \('tfidf-lr', 0\.\d+\)\]\n",
    "data": r"101 comment stars\n",
    "train": r"(0\.\d+|1\.0) [\[(].*[\])]\n\['good'\]\n",
    "protocol": r"\[0\.03,? 0\.06,? 0\.06\]\n",  # 3 · 0.01, then 2 · 0.03, and no less after it
}


@pytest.mark.parametrize(("name", "code"), PYTHON)
def test_python(
    name: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    exec(compile(code, name, "exec"), {})
    said = capsys.readouterr().out
    assert re.fullmatch(PRINTS[name], said), said


def test_what_the_pages_say_of_splits(folder: Path) -> None:
    data = load_dataset(DataSpec(name=str(folder / "reviews.csv")))
    assert (len(data.test), len(data.validation)) == (28, 11)


ANSWERS = [
    tuple(found)
    for block in blocks("docs/faq.md", "text")
    for found in re.findall(r"^\$ (.*)\n(.*)$", block, flags=re.MULTILINE)
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that go wrong as the page tells."""
    work = tmp_path_factory.mktemp("faq") / "work"
    work.mkdir()
    rows = make_reviews(60)[["text", "label"]]
    rows.to_csv(work / "reviews.csv", index=False)
    moods = rows.assign(tone=rows["label"]).rename(columns={"label": "mood"})
    moods.to_csv(work / "moods.csv", index=False)
    rows.assign(label=range(60)).to_csv(work / "numbers.csv", index=False)
    rows[rows["label"] == "good"].to_csv(work / "one.csv", index=False)
    rows.assign(label=["new", *rows["label"][1:]]).to_csv(work / "other.csv", index=False)
    rows.assign(text=rows["text"] + " à").to_csv(work / "latin.csv", index=False, encoding="cp1252")
    (work / "report").mkdir()
    (work / "report/report.html").touch()
    return work


@pytest.mark.parametrize(("line", "said"), ANSWERS)
def test_error_of_the_faq(
    line: str, said: str, odd: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(odd)
    if "evaluate model" in line and not (odd / "model").exists():
        train = "valence train reviews.csv --method majority --out model --quiet"
        assert give(shlex.split(train), monkeypatch) == 0
        capsys.readouterr()
    assert give(shlex.split(line), monkeypatch) == 1
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_every_answer_of_the_faq_is_given() -> None:
    assert len(ANSWERS) == page("docs/faq.md").count("\n$ ")
