"""Groups of rows, such as languages or domains: which column names them, and which are used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from valence.config.data import DataSpec
from valence.data.dataset import Dataset, Split
from valence.data.sampling import longtail_counts, stratified_split, take_counts
from valence.errors import DataError, SpecError, UnknownNameError

if TYPE_CHECKING:
    from valence.data.locate import Table

LANGUAGE = "language"
"""The column that names groups where the spec names none."""
UNNAMED = "unknown"
"""The group of rows that name none."""
SOURCE_ROW = "row in its source"
"""Column of a row's number where the rows of a source are not read as one table."""
TransferKind = Literal["matrix", "leave-one-out"]


def group_values(column: pd.Series) -> pd.Series:
    """Group names as text; rows without one are :data:`UNNAMED`."""
    names = column.where(column.notna(), "").astype(str).str.strip()
    return names.where(names != "", UNNAMED)


def group_column(spec: DataSpec, columns: Sequence[str], where: str) -> str:
    """The name of the group column: the spec's, else ``language`` if there is one, else "".

    Raises:
        DataError: if the column named, or one for the groups named, is not there.
    """
    requested = spec.group or LANGUAGE
    if requested in columns:
        return requested
    if spec.group is None and spec.groups is None and spec.train_groups is None:
        return ""
    close = difflib.get_close_matches(requested, columns, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(
        f"{where}: no column {requested!r} for groups; {hint}columns: {', '.join(columns[:20])}; "
        "set it with --group"
    )


def requested_groups(spec: DataSpec, split: str) -> tuple[str, ...] | None:
    """The groups whose rows of a split are used; None for all.

    Args:
        spec: The selection.
        split: ``train``, ``validation``, ``test``, or ``all`` for rows not split yet.
    """
    if split == "test" or spec.train_groups is None:
        return spec.groups
    if split == "all":
        return None if spec.groups is None else (*spec.groups, *spec.train_groups)
    return spec.train_groups


@dataclass(frozen=True)
class GroupRows:
    """The rows of a table that belong to some groups; a ``Table`` like the one it reads.

    Attributes:
        table: All rows.
        spec: Names the group column.
        groups: Groups that are used.
        where: Name of the source, for messages.
    """

    table: Table
    spec: DataSpec
    groups: tuple[str, ...]
    where: str

    def read(self) -> pd.DataFrame:
        """All rows of the groups."""
        (chosen,) = self._chosen([self.table.read()])
        return chosen

    def batches(self, rows: int) -> Iterator[pd.DataFrame]:
        """Rows of the groups, in tables of at most ``rows``."""
        yield from self._chosen(self.table.batches(rows))

    def _chosen(self, tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        seen: set[str] = set()
        start = 0
        for table in tables:
            columns = [str(name) for name in table.columns]
            values = group_values(table[group_column(self.spec, columns, self.where)])
            seen.update(values.unique())
            if SOURCE_ROW not in columns:
                table = table.assign(**{SOURCE_ROW: np.arange(start, start + len(table))})
            start += len(table)
            yield table[values.isin(self.groups).to_numpy()].reset_index(drop=True)
        for name in self.groups:
            if name not in seen:
                raise UnknownNameError(self.spec.group or LANGUAGE, name, sorted(seen))


def choose_rows(spec: DataSpec, tables: Mapping[str, Table]) -> dict[str, Table]:
    """The tables, as :class:`GroupRows` where only some groups are requested."""
    selected: dict[str, Table] = {}
    for split, table in tables.items():
        groups = requested_groups(spec, split)
        selected[split] = table if groups is None else GroupRows(table, spec, groups, spec.name)
    return selected


def split_by_group(
    rows: Split, column: str, fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (train, held out) of a stratified split within every group.

    So a group's rows are split alike whichever other groups are read beside it.

    Args:
        rows: Rows to split.
        column: The group column of ``rows.extra``; all rows are one group when empty.
        fraction: Fraction of the rows that is held out.
        seed: Decides which rows.
    """
    if not column:
        return stratified_split(rows.labels, fraction, seed=seed)
    names = group_values(rows.extra[column]).to_numpy()
    train, held_out = [], []
    for name in pd.unique(names):
        own = np.flatnonzero(names == name)
        first, second = stratified_split(rows.labels[own], fraction, seed=seed)
        train.append(own[first])
        held_out.append(own[second])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held_out))


def with_groups(spec: DataSpec, data: Dataset) -> Dataset:
    """The data set with its group column named and filled, and only the groups requested.

    Raises:
        DataError: if the column is missing or a split has no row of the groups.
        UnknownNameError: if a group is in no row.
    """
    column = group_column(spec, [str(name) for name in data.train.extra.columns], spec.name)
    if not column:
        return data
    notes = data.notes
    splits: dict[str, Split] = {}
    known = sorted(set(group_values(data.train.extra[column])))
    for name in ("train", "validation", "test"):
        rows: Split = getattr(data, name)
        if column not in rows.extra.columns and len(rows):
            raise DataError(f"{spec.name} ({name}): no column {column!r}; every split needs it")
        values = group_values(rows.extra[column])
        blank = int((values == UNNAMED).sum())
        if blank:
            notes = (*notes, f"{name}: {blank} rows without {column} are in group {UNNAMED!r}")
        rows = replace(rows, extra=rows.extra.assign(**{column: values}))
        splits[name] = _of_groups(
            rows, values.to_numpy(), requested_groups(spec, name), column, known
        )
        if len(rows) and not len(splits[name]):
            raise DataError(f"{spec.name} has no {name} rows of the chosen groups")
    return replace(
        data, group=column, notes=notes,
        train=splits["train"], validation=splits["validation"], test=splits["test"],
    )  # fmt: skip


def limit_groups(spec: DataSpec, data: Dataset, seed: int) -> Dataset:
    """The data set with no more labeled rows of a group than ``spec.group_rows`` says.

    The rows are drawn from the group's training rows. ``spec.validation_share`` of them, at
    least one of every class that has two, are its validation rows; the ones it had are left
    out, since nobody with so few labels would have them.

    Raises:
        DataError: if there are no groups, or a group has fewer rows.
        UnknownNameError: if a group is in no training row.
    """
    if not spec.group_rows:
        return data
    if not data.group:
        raise DataError(f"{spec.name} has no groups for data.group_rows; name them with --group")
    names = group_values(data.train.extra[data.group]).to_numpy()
    limited = list(spec.group_rows)
    train, validation = [np.flatnonzero(~np.isin(names, limited))], []
    for name, limit in spec.group_rows.items():
        own = np.flatnonzero(names == name)
        if not len(own):
            raise UnknownNameError(data.group, name, sorted(set(names)))
        labels = data.train.labels[own]
        counts = longtail_counts(np.bincount(labels, minlength=len(data.classes)), total=limit)
        drawn = own[take_counts(labels, counts, seed=seed, classes=data.classes)]
        rest, held_out = stratified_split(
            data.train.labels[drawn], spec.validation_share, seed=seed
        )
        train.append(drawn[rest])
        validation.append(drawn[held_out])
    before = group_values(data.validation.extra[data.group]).to_numpy()
    others = data.validation.take(np.flatnonzero(~np.isin(before, limited)))
    given = ", ".join(f"{limit} of {name}" for name, limit in spec.group_rows.items())
    return replace(
        data,
        train=data.train.take(np.sort(np.concatenate(train))),
        validation=_joined(others, data.train.take(np.sort(np.concatenate(validation)))),
        notes=(*data.notes, f"labeled rows that training and validation have: {given}"),
    )


def _joined(first: Split, second: Split) -> Split:
    """The rows of both."""
    return Split(
        [*first.texts, *second.texts],
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, second.ids]),
        pd.concat([first.extra, second.extra], ignore_index=True),
    )


def _of_groups(
    rows: Split, values: np.ndarray, groups: tuple[str, ...] | None, column: str,
    known: Sequence[str],
) -> Split:  # fmt: skip
    if groups is None:
        return rows
    for group in groups:
        if group not in values:
            raise UnknownNameError(column, group, sorted({*known, *values}))
    return rows.take(np.flatnonzero(np.isin(values, groups)))


def transfer_sets(
    spec: DataSpec, data: Dataset, kind: TransferKind, target_rows: Sequence[int] = ()
) -> tuple[DataSpec, ...]:
    """One spec per training of a transfer; each is tested on every group in one go.

    ``matrix``: every group alone. ``leave-one-out``: all groups but one, each in turn, and
    all groups together, the baseline of leaving one out. With ``target_rows``, each group is
    also trained on with so many of its rows, beside all others and alone.

    Args:
        spec: What ``data`` was loaded from.
        data: The rows of all groups.
        kind: Which trainings.
        target_rows: Numbers of labeled rows of the group left out.

    Raises:
        DataError: if there are fewer than two groups to train on.
        SpecError: if the spec itself names groups to train on, or rows of the group left out
            are given and none is left out.
    """
    if target_rows and kind == "matrix":
        raise SpecError("target_rows are of the group left out; use --transfer leave-one-out")
    if spec.train_groups is not None:
        raise SpecError("A transfer chooses the groups to train on; remove train_groups")
    names = data.group_names()
    if len(names) < 2:
        raise DataError(
            f"{spec.name} has {len(names) or 'no'} group to train on, but a transfer needs two; "
            f"set the column with --group, or use one folder per "
            "language"
        )
    ordered = [n for n in spec.groups if n in names] if spec.groups else list(names)
    if kind == "matrix":
        return tuple(spec.model_copy(update={"train_groups": (name,)}) for name in ordered)
    others = [tuple(n for n in ordered if n != name) for name in ordered]
    few = [
        spec.model_copy(update={"train_groups": groups, "group_rows": {name: rows}})
        for rows in target_rows
        for name in ordered
        for groups in (tuple(ordered), (name,))
    ]
    return (spec, *(spec.model_copy(update={"train_groups": group}) for group in others), *few)
