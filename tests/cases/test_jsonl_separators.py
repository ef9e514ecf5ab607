r"""JSONL is split at ``\n`` alone: a text may hold what Unicode calls a line break."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import valence
from tests.conftest import make_reviews
from tests.runs import spec_of, true_labels, write_run
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.llm.answer_cache import AnswerCache
from valence.llm.instruct import make_instructions
from valence.llm.records import read_rows
from valence.llm.retrieval import Embedder
from valence.llm.server_replies import Reply
from valence.reports.curves import write_curves
from valence.runs.store import RunStore
from valence.storage.lines import read_lines, split_lines

BREAKS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize("mark", BREAKS)
def test_lines_end_at_a_line_feed_alone(mark: str, tmp_path: Path) -> None:
    text = json.dumps({"text": f"a{mark}b"}, ensure_ascii=False)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"{text}\n\n{text}\r\n".encode())
    assert [json.loads(line)["text"] for line in read_lines(path)] == [f"a{mark}b"] * 2
    assert split_lines("") == []


def test_instructions_with_such_texts_are_read_again(tiny_encoder: Path, tmp_path: Path) -> None:
    rows = make_reviews(30)
    rows["text"] = [f"{text}{BREAKS[i % 3]}more" for i, text in enumerate(rows["text"])]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    embedder = Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu")
    out = tmp_path / "made"
    make_instructions(DataSpec(name=str(tmp_path / "rows.csv")), out, embedder=embedder)
    read = [example.question.text for example in read_rows(out, "train")]
    assert read
    assert set(read) <= set(rows["text"])


def test_answers_of_a_server_with_such_texts_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALENCE_CACHE", str(tmp_path))
    before = AnswerCache("http://localhost/v1", "model")
    before.add("a", Reply("good\u2028film"))
    before.add("b", Reply("bad\x85film"))
    after = AnswerCache("http://localhost/v1", "model")
    assert after.get("a") == Reply("good\u2028film")
    assert after.get("b") == Reply("bad\x85film")


def test_histories_with_such_texts_are_read_again(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    labels = true_labels()
    result = write_run(store, spec_of("lora"), labels, labels)
    row = {"step": 1, "note": "a\u2028b", "loss": 0.5, "validation/macro_f1": 0.5}
    folder = store.path(result.key)
    text = json.dumps(row, ensure_ascii=False)
    (folder / "history.jsonl").write_text(text + "\n", encoding="utf-8")
    assert store.history(result.key) == [row]
    assert write_curves(folder).exists()


def test_no_file_of_lines_is_split_otherwise() -> None:
    """``splitlines`` is for messages of errors and tools, never for what a file holds."""
    package = Path(valence.__file__).parent
    wrong = re.compile(r"read_text\([^)]*\)\.splitlines|read\(\)\.splitlines")
    files = [
        path.relative_to(package).as_posix() for path in package.rglob("*.py")
        if wrong.search(path.read_text(encoding="utf-8"))
    ]  # fmt: skip
    assert files == ["serving/settings.py"]  # a file of keys, none of which holds such a character
