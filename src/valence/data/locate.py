"""From a name to tables that can be read whole or in parts, by split: :func:`locate`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from valence.config.data import DataSpec
from valence.config.database_url import is_sql_url
from valence.data.catalog import DATASETS
from valence.data.formats import is_table, reading_note, table_file, table_stem
from valence.data.frames import held_frame
from valence.data.groups import LANGUAGE, SOURCE_ROW
from valence.data.label_file import LabelFileRows, is_label_file
from valence.data.tables import SUFFIXES, open_hub, read_batches, read_table
from valence.errors import DataError, SpecError, UnknownNameError

SPLITS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
READ_ROWS = 20_000
"""Rows held at once while a source is read in parts."""
KAGGLE = "kaggle:"


class Table(Protocol):
    """Rows of one split of a source."""

    def read(self) -> pd.DataFrame:
        """All rows.

        Raises:
            DataError: if they cannot be read.
        """

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """All rows in order, in tables of at most ``rows``; never all at once.

        Raises:
            DataError: if they cannot be read.
        """


@dataclass(frozen=True)
class FileRows:
    """Rows of a file of one of the ``FORMATS``.

    Attributes:
        path: The file.
        encoding: Of its text; UTF-8 when None.
        has_header: Whether the first line of a CSV names the columns.
    """

    path: Path
    encoding: str | None = None
    has_header: bool = True

    def read(self) -> pd.DataFrame:
        """All rows."""
        return read_table(self.path, self.encoding, has_header=self.has_header)

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows."""
        return read_batches(self.path, rows, self.encoding, has_header=self.has_header)


@dataclass(frozen=True)
class InMemoryRows:
    """Rows that are in memory."""

    table: pd.DataFrame

    def read(self) -> pd.DataFrame:
        """All rows."""
        return self.table

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows."""
        for start in range(0, len(self.table), rows):
            yield self.table[start : start + rows].reset_index(drop=True)


@dataclass
class FirstRows:
    """The first rows of another table.

    Attributes:
        table: The other.
        most: How many at most.
        has_more: Whether it has more; known after they were read.
    """

    table: Table
    most: int
    has_more: bool = False

    def read(self) -> pd.DataFrame:
        """The first rows."""
        parts = list(self.batches(min(READ_ROWS, self.most)))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows."""
        left = self.most
        for batch in self.table.batches(rows):
            if left <= 0 < len(batch):
                self.has_more = True
                return
            self.has_more = len(batch) > left
            yield batch[:left]
            left -= len(batch)


@dataclass(frozen=True)
class FolderRows:
    """Rows of several folders, one per group, with a column that names the group.

    Attributes:
        parts: The rows of each folder, by its name.
        column: Name of the column; a column of that name in the files wins.
    """

    parts: Mapping[str, Table]
    column: str

    def read(self) -> pd.DataFrame:
        """All rows, folder after folder."""
        tables = [self._named(name, table.read(), 0) for name, table in self.parts.items()]
        return pd.concat(tables, ignore_index=True)

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows, none of two folders."""
        for name, table in self.parts.items():
            start = 0
            for batch in table.batches(rows):
                yield self._named(name, batch, start)
                start += len(batch)

    def _named(self, name: str, table: pd.DataFrame, start: int) -> pd.DataFrame:
        numbers = [f"{name}-{i}" for i in range(start, start + len(table))]
        added = {SOURCE_ROW: numbers, self.column: name}
        return table.assign(**{k: v for k, v in added.items() if k not in table.columns})


@dataclass(frozen=True)
class HubRows:
    """Rows of a ``datasets.Dataset``, which stays on disk."""

    rows: Any

    def read(self) -> pd.DataFrame:
        """All rows."""
        table: pd.DataFrame = self.rows.to_pandas()
        return table

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Tables of at most ``rows`` rows."""
        yield from self.rows.to_pandas(batch_size=rows, batched=True)


def locate(
    spec: DataSpec, data_dir: str | Path | None = None
) -> tuple[dict[str, Table], list[str]]:
    """The tables a spec names, by split name or under ``"all"``, and notes on them.

    Args:
        spec: Names the source; of a database also the query or the table.
        data_dir: Folder with one folder per corpus.

    Raises:
        DataError: if something cannot be found or opened.
        UnknownNameError: if nothing has that name.
    """
    if is_sql_url(spec.name):
        from valence.data.database_rows import sql_tables

        tables, notes = sql_tables(
            spec.name,
            query=spec.query,
            table=spec.table,
            text_column=spec.text_column,
            timeout_seconds=spec.query_timeout,
        )
        return {**tables}, notes
    frame = held_frame(spec.name)
    if frame is not None:
        refuse_encoding(spec, "rows in memory")
        return {"all": InMemoryRows(frame)}, []
    if spec.name.startswith(KAGGLE):
        path = download_kaggle(spec.name.removeprefix(KAGGLE))
        return tables_of_path(path, spec.group, spec.encoding, has_header=spec.header), []
    where = data_dir or os.environ.get("VALENCE_DATA")
    for path in [Path(spec.name), *([Path(where) / spec.name] if where else [])]:
        if is_label_file(path):
            return {"all": LabelFileRows(path)}, []
        if table_file(path).exists():
            files = tables_of_path(path, spec.group, spec.encoding, has_header=spec.header)
            return files, _reading_notes(files)
    return _of_hub(spec, where), []


def _reading_notes(tables: Mapping[str, Table]) -> list[str]:
    """What was found out to read the files among the tables."""
    files = [table for table in tables.values() if isinstance(table, FileRows)]
    notes = (reading_note(file.path, file.encoding) for file in files)
    return [note for note in notes if note]


def refuse_encoding(spec: DataSpec, what: str) -> None:
    """Refuse the encoding of a file for what is no file.

    Raises:
        DataError: if the spec names an encoding.
    """
    if spec.encoding is not None:
        raise DataError(f"{spec.name}: {what} have their own encoding; remove --encoding")


NAMING = {
    "name", "target", "features", "text_column", "label_column", "query", "table", "encoding",
    "query_timeout", "group", "groups", "split_column", "header", "normalize_labels",
}  # fmt: skip
"""Fields of a spec that say where rows are and how they are read; the others subsample them."""


def refuse_subsampling(spec: DataSpec, why: str) -> None:
    """Refuse settings that subsample rows where all are used.

    Args:
        spec: Names the rows.
        why: What is done with all of them, for the message.

    Raises:
        SpecError: with the first such setting.
    """
    settings = sorted(spec.model_dump(exclude_defaults=True).keys() - NAMING)
    if settings:
        raise SpecError(f"data.{settings[0]} is for training; {why}, so remove it")


def tables_of_path(
    path: Path, group: str | None = None, encoding: str | None = None, *, has_header: bool = True
) -> dict[str, Table]:
    """The tables of a file, of a folder of split files, or of one such folder per group.

    Args:
        path: The file or folder.
        group: Name of the column that folders stand for; ``language`` when not given.
        encoding: Of the text files; UTF-8 when not given.
        has_header: Whether the first line of a CSV names the columns.

    Raises:
        DataError: if there is no file to train on, or the folders hold different splits.
    """
    if table_file(path).is_file():
        return {"all": FileRows(path, encoding, has_header)}
    files = {table_stem(p).lower(): p for p in sorted(path.iterdir()) if is_table(p)}
    splits: dict[str, Table] = {
        split: FileRows(files[name], encoding, has_header)
        for split, names in SPLITS.items()
        for name in names
        if name in files
    }
    if "train" in splits:
        return splits
    if len(files) == 1:
        return {"all": FileRows(next(iter(files.values())), encoding, has_header)}
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and _has_train(p)]
    if folders and not files:
        return _of_folders(folders, group or LANGUAGE, encoding, has_header)
    raise DataError(
        f"Folder {path} has no train file; add one named train{SUFFIXES[0]} "
        f"(also validation and test; {', '.join(SUFFIXES)} are read), or make one such folder "
        "per language"
    )


def _has_train(path: Path) -> bool:
    return any((path / f"train{suffix}").exists() for suffix in SUFFIXES)


def _of_folders(
    folders: list[Path], column: str, encoding: str | None, has_header: bool
) -> dict[str, Table]:
    parts = {
        folder.name: tables_of_path(folder, encoding=encoding, has_header=has_header)
        for folder in folders
    }
    splits = next(iter(parts.values()))
    for name, own in parts.items():
        if set(own) != set(splits):
            raise DataError(
                f"Folder {folders[0].parent / name} has {', '.join(own)}, but {folders[0].name} "
                f"has {', '.join(splits)}; every folder needs the same "
                f"splits"
            )
    return {
        split: FolderRows({name: own[split] for name, own in parts.items()}, column)
        for split in splits
    }


def _of_hub(spec: DataSpec, data_dir: str | Path | None) -> dict[str, Table]:
    name = spec.name
    card = DATASETS.get(name)
    if is_table(table_file(Path(name))):
        raise DataError(f"File {name} does not exist; check the path (now in {Path.cwd().name}/)")
    if card is not None and card.hub is None:
        raise DataError(
            f"Data set {name!r} is not on the hub; put its files into a folder {name}/ and pass "
            "the folder above it with --data-dir"
        )
    if card is None and (name.count("/") != 1 or name.startswith((".", "/"))):
        folder = Path(data_dir) if data_dir else None
        own = [p.name for p in folder.iterdir() if p.is_dir()] if folder and folder.is_dir() else []
        raise UnknownNameError("file or data set", name, {*DATASETS, *own})
    refuse_encoding(spec, "rows of the hub")
    hub = card.hub if card is not None and card.hub is not None else (name, None)
    return {split: HubRows(rows) for split, rows in open_hub(*hub).items()}


def download_kaggle(name: str) -> Path:
    """The folder of a Kaggle data set, or one file of it, downloaded to kagglehub's cache.

    Args:
        name: ``owner/dataset`` or ``owner/dataset/file``.

    Raises:
        DataError: if the name, the extra or the credentials are missing, or Kaggle refuses.
    """
    owner, _, rest = name.partition("/")
    dataset, _, file = rest.partition("/")
    if not owner or not dataset:
        raise DataError(f"kaggle:{name} is not a data set; write kaggle:owner/dataset")
    if not _kaggle_credentials():
        raise DataError(
            f"Reading kaggle:{name} needs your Kaggle credentials: set KAGGLE_API_TOKEN, or put "
            "the kaggle.json of your account's settings page into ~/.kaggle/"
        )
    try:
        import kagglehub
    except ImportError:
        raise DataError(
            f"Reading kaggle:{name} needs an extra: pip install 'valence[kaggle]'"
        ) from None
    try:
        return Path(kagglehub.dataset_download(f"{owner}/{dataset}", path=file or None))
    except Exception as error:  # the library raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise DataError(
            f"kaggle:{name} cannot be downloaded ({reason}); check the name, the credentials "
            "and the network"
        ) from None


def _kaggle_credentials() -> bool:
    if os.environ.get("KAGGLE_API_TOKEN"):
        return True
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return True
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    return any((folder / name).is_file() for name in ("kaggle.json", "access_token"))
