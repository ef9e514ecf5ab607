"""The card of a model, and models by folder or hub id.

The hub itself is not asked: it is a server on loopback that speaks as much of its language
as a fetch and a push need.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

import valence
from tests.conftest import make_reviews
from valence import Predictor, cli
from valence.errors import ModelError
from valence.inference.hub import fetch, push

TEXTS = ["the food was great", "an awful room"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("card")
    frame = make_reviews(140)
    frame["label"] = frame["label"].replace({"meh": "so|so"})
    frame.to_csv(place / "reviews.csv", index=False)
    result = valence.train(str(place / "reviews.csv"), "tfidf-lr", runs=place / "runs")
    return place / "runs" / result.key / "model"


def test_a_card_is_saved_with_the_model(model: Path) -> None:
    card = (model / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["pipeline_tag"] == "text-classification"
    result = valence.RunStore(model.parents[1]).all()[0]
    for name, count in zip(result.classes, result.train_counts, strict=True):
        score = result.test[f"f1/{name}"]
        shown = name.replace("|", "\\|")
        assert f"| {shown} | {count} | {score:.3f} |" in body
    chosen, tested = result.validation["macro_f1"], result.test["macro_f1"]
    assert f"| macro-F1 | {chosen:.3f} | {tested:.3f} |" in body
    assert "Fewer than 20 training rows, so unreliable: so\\|so" in body
    assert str(model.parents[2]) not in card, "no path of this machine"
    assert not any(text in card for text in make_reviews(140)["text"]), "no text of the data"


def test_a_folder_is_its_own_name(model: Path) -> None:
    found = Predictor.from_pretrained(str(model))
    expected = Predictor(model).predict_proba(TEXTS)
    np.testing.assert_array_equal(found.predict_proba(TEXTS), expected)


@pytest.mark.parametrize("name", ["no-such-folder", "./models/x", "/nowhere/x", "a/b/c"])
def test_a_missing_folder_is_said(name: str) -> None:
    with pytest.raises(ModelError, match="No model folder at"):
        Predictor.from_pretrained(name)


def test_offline_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for call in (lambda: fetch("owner/name"), lambda: push(model, "owner/name")):
        with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
            call()


def test_a_model_on_a_local_encoder_is_not_pushed(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["kind"] = "torch"
    config["spec"]["encoder"] = {"name": str(tmp_path), "adaptation": "lora"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="which others do not have"):
        push(tmp_path, "owner/name")


@dataclass
class FakeHub:
    """What is on the hub, and what was sent to it."""

    files: dict[str, bytes]
    committed: list[dict] = field(default_factory=list)


COMMIT = "0" * 40


class Handler(BaseHTTPRequestHandler):
    """A few of the hub's addresses; no proof that the real one answers so."""

    fake: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, body: bytes | dict | list, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        files = self.fake.files
        path = self.path.partition("?")[0]
        if "owner/model" not in path:
            self.answer({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
        elif "/resolve/" in path:
            data = files[path.rpartition("/")[2]]
            self.answer(data, ETag=f'"{hash(data) & 0xFFFFFFFF:x}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            self.answer(
                [{"type": "file", "path": name, "size": len(data), "oid": "1" * 40}
                 for name, data in files.items()]
            )  # fmt: skip
        else:
            names = [{"rfilename": name} for name in files]
            self.answer({"id": "owner/model", "modelId": "owner/model", "sha": COMMIT,
                         "private": False, "tags": [], "downloads": 0, "likes": 0,
                         "siblings": names})  # fmt: skip

    do_HEAD = do_GET

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/create"):
            self.answer({"url": f"{self.root}/owner/model", "name": "owner/model"})
        elif "/preupload/" in self.path:
            names = [entry["path"] for entry in json.loads(data)["files"]]
            self.answer({"files": [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]})  # fmt: skip
        elif "/commit/" in self.path:
            self.fake.committed = [json.loads(line) for line in data.splitlines()]
            self.answer({"success": True, "commitOid": COMMIT, "hookOutput": "",
                         "commitUrl": f"{self.root}/owner/model/commit/{COMMIT}"})  # fmt: skip
        else:
            self.answer({})


@pytest.fixture
def hub(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A loopback server in place of the hub."""
    Handler.fake = FakeHub({p.name: p.read_bytes() for p in model.iterdir() if p.is_file()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    root = f"http://127.0.0.1:{server.server_port}"
    changes = {
        "HF_HUB_OFFLINE": False,
        "ENDPOINT": root,
        "HUGGINGFACE_CO_URL_TEMPLATE": root + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in changes.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield Handler.fake
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_fake_hub_gives_a_model(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    folder = fetch("owner/model")
    assert folder.is_relative_to(tmp_path)
    expected = Predictor(model).predict_proba(TEXTS)
    np.testing.assert_array_equal(Predictor(folder).predict_proba(TEXTS), expected)
    with pytest.raises(ModelError, match="the repository does not exist"):
        fetch("owner/other")


def test_push_to_a_fake_hub_sends_no_text_of_the_data(
    hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "report").mkdir(exist_ok=True)
    (model / "report" / "results.json").write_text("[]")
    (model / "neighbours.parquet").write_bytes(b"texts of the data")
    monkeypatch.setattr(sys, "argv", ["valence", "push", str(model), "owner/model"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert not ended.value.code, err
    assert "/owner/model/commit/" in err
    sent = {line["value"]["path"] for line in hub.committed if line["key"] == "file"}
    assert sent == {"README.md", "config.json", "regression.safetensors", "terms.json"}
