"""Finished parts of a long job, saved beside its target so that a killed job can resume.

The folder holds ``job.json`` (what the parts were made from) and, per part, its rows in the
format of the target and a record with their number and hashes. A part counts when its record
is there and its file has the recorded hash; work resumes at the first that does not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from valence.errors import DataError
from valence.inference.bulk.parts import ADVICE, writing
from valence.storage import atomic
from valence.storage.file_lock import locked

FORMAT = 1
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class PartRecord:
    """The record of a finished part.

    Attributes:
        rows: How many.
        names: Its columns.
        truncated: Texts that were truncated.
        source: Hash of the texts that were read.
        digest: Hash of the file that was written.
    """

    rows: int
    names: list[str]
    truncated: int
    source: str
    digest: str


class Parts:
    """The parts of one target.

    Args:
        folder: Where they are.
        suffix: Of their files.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self.suffix = suffix

    def open(self, job: Mapping[str, Any], *, resume: bool | None) -> list[PartRecord]:
        """Records of the finished parts.

        Args:
            job: What decides the result: source, model, options.
            resume: Whether to go on; None refuses to choose where parts of the same job are.

        Raises:
            DataError: if parts are there and ``resume`` is None, or they are of another job.
        """
        saved = self._job()
        requested = json.loads(json.dumps({"format": FORMAT, **job}))
        records = self.records() if saved is not None else []
        rows = sum(record.rows for record in records)
        if resume and records and saved != requested:
            assert saved is not None
            other = next((k for k in requested if saved.get(k) != requested[k]), "options")
            raise DataError(
                f"{self.folder} holds {rows} rows made with another {other}, so it cannot be "
                "resumed; run without --resume, or delete the folder"
            )
        if resume is None and records and saved == requested:
            raise DataError(
                f"{rows} rows are already done; continue with --resume, or start over with "
                "--no-resume"
            )
        if resume and saved == requested:
            return records
        with writing(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        atomic.write_text(self.folder / "job.json", json.dumps(requested), advice=ADVICE)
        return []

    def add(self, number: int, record: PartRecord, write: Callable[[Path], None]) -> PartRecord:
        """Keep a part: first its file, then its record with the file's hash.

        Args:
            number: Its place.
            record: Its record, without a hash.
            write: Writes the rows into the file it is given.
        """
        with atomic.new_file(self.file(number), advice=ADVICE) as scratch:
            write(scratch)
            whole = replace(record, digest=file_digest(scratch))
        atomic.write_text(self._record(number), json.dumps(asdict(whole)), advice=ADVICE)
        return whole

    def file(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06d}{self.suffix}"

    def remove(self) -> None:
        """Delete all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.json"

    def _job(self) -> dict[str, Any] | None:
        try:
            job: dict[str, Any] = json.loads((self.folder / "job.json").read_bytes())
        except (OSError, ValueError):
            return None
        return job

    def records(self) -> list[PartRecord]:
        """Records of the parts that are whole, up to the first that is not."""
        records: list[PartRecord] = []
        while True:
            number = len(records)
            try:
                record = PartRecord(**json.loads(self._record(number).read_bytes()))
                if file_digest(self.file(number)) != record.digest:
                    return records
            except (OSError, ValueError, TypeError):
                return records
            records.append(record)


@contextmanager
def exclusive_writer(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine from writing the same parts.

    Raises:
        DataError: if another process is at them.
    """
    path = folder.with_name(f"{folder.name}.lock")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    busy = DataError(f"Another process is writing to {folder}; wait for it, or use another --out")
    with locked(path, busy):
        yield


def file_digest(*files: Path) -> str:
    """Thirty-two hex digits of the contents of files, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def texts_digest(texts: list[str]) -> str:
    """Thirty-two hex digits of texts; where one ends matters."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()
