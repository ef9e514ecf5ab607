"""Answers of a server on disk, each paid for once: :class:`AnswerCache`."""

from __future__ import annotations

import json
import threading

from valence.errors import RunError
from valence.llm.server_replies import Reply
from valence.storage import cache
from valence.storage.lines import split_lines


class AnswerCache:
    """Answers of one model of one server, one JSON line each, added to as they arrive."""

    def __init__(self, url: str, model: str) -> None:
        self.about = {"server": url, "model": model}
        self.name = cache.content_key([url, model])
        self.path = cache.cache_root() / cache.ANSWERS.name / self.name / "answers.jsonl"
        self.lock = threading.Lock()
        self.replies: dict[str, Reply] = {}
        self._create()  # so that an unwritable cache fails before anything is paid for
        text = self._read_text()
        # A line that a kill left incomplete must not swallow the next answer.
        self.separator = "" if text.endswith("\n") or not text else "\n"
        for line in split_lines(text):
            try:
                row = json.loads(line)
                self.replies[row["key"]] = Reply(row["text"], row["tokens"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill left incomplete

    def get(self, key: str) -> Reply | None:
        """The reply of a question that was answered before."""
        return self.replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Write a reply.

        Raises:
            RunError: if the file cannot be written.
        """
        row = {"key": key, "text": reply.text, "tokens": reply.tokens}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self.lock:
            self.replies[key] = reply
            self._create()  # again where another process has cleared the cache
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(self.separator + line)
            except OSError as error:
                raise RunError(
                    f"Cannot write {self.path}: {error.strerror or error}; {cache.ADVICE}"
                ) from None
            self.separator = ""

    def _read_text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _create(self) -> None:
        if cache.find(cache.ANSWERS, self.name) is None:
            with cache.writing(cache.ANSWERS, self.name, self.about) as scratch:
                (scratch / self.path.name).touch()
