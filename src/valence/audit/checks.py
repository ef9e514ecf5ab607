"""What is wrong with labeled rows before anything is trained on them: leaks, duplicates, labels.

A check takes rows and returns a :class:`Finding`: one line that says what it means, and the rows
it is about. Rows are a table with the columns ``split``, ``row`` (number in the source, from
0), ``text``, ``label`` and ``key`` (the normalized text), test rows first.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from valence.audit.duplicates import normalize_text
from valence.config.data import DataSpec
from valence.data.catalog import DATASETS
from valence.data.dataset import Dataset
from valence.data.groups import choose_rows
from valence.data.locate import locate, refuse_subsampling
from valence.data.source_columns import read_columns
from valence.data.sources import load_dataset
from valence.data.tables import clean
from valence.evaluation.classification import MIN_TEST_ROWS

Level = Literal["problem", "warning", "fine", "skipped"]
ORDER = ("test", "validation", "train", "all")
"""Splits by priority: of two duplicates, the row of the earlier split stays."""
ROW_COLUMNS = ["split", "row", "label", "text"]
SERIOUS_FRACTION = 0.01  # of a split: below it a finding does not move a reported score
MIN_TRAIN_ROWS = 20  # of a class: below it results depend on the draw
MIN_RATIO = 0.85  # difflib's ratio of two label names that are likely the same word
LONGEST_AFFIX = 2  # letters of "un-", "in-", "im-", with which a name means the opposite


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Its name, which is also the name of its file.
        level: How much it matters.
        line: What it means, in one or two sentences.
        count: Rows (or labels) concerned.
        rows: The rows, with details of each.
    """

    check: str
    level: Level
    line: str
    count: int = 0
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class LabeledSource:
    """Labeled rows as they are in the source, neither subsampled nor split.

    Attributes:
        name: Where they are from.
        tables: Every split as it was read, all columns; ``"all"`` where there is one file.
        rows: The rows of all splits that have a text and a label.
        languages: ISO 639 codes the texts should be in; empty where it is not known.
        notes: What was left out.
        label_column: The column of the labels in the tables.
    """

    name: str
    tables: Mapping[str, pd.DataFrame]
    rows: pd.DataFrame
    languages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    label_column: str = "label"

    @property
    def splits(self) -> list[str]:
        """The splits of the source, test first."""
        names = set(self.rows["split"].unique())
        return [name for name in ORDER if name in names]

    def shown(self, split: str) -> str:
        """A split's name in a sentence, with a space behind it; nothing where there is one file."""
        return "" if split == "all" else f"{split} "

    @property
    def training(self) -> str:
        """The split that is trained on."""
        return "train" if "train" in self.splits else self.splits[-1]

    def of(self, split: str) -> pd.DataFrame:
        """The rows of a split, numbered from 0."""
        return self.rows[self.rows["split"] == split].reset_index(drop=True)


def read_source(spec: DataSpec, data_dir: str | Path | None = None) -> LabeledSource:
    """The rows a spec names, whatever their labels are.

    Args:
        spec: Names the source, its columns and its groups.
        data_dir: As for ``load_dataset``.

    Raises:
        DataError: if something cannot be found, read or used.
        SpecError: if the spec subsamples rows.
    """
    refuse_subsampling(spec, "an audit reads all rows")
    card = DATASETS.get(spec.name)
    notes: list[str] = []
    if spec.name == "demo":
        tables = _as_tables(load_dataset(spec))
    else:
        located, notes = locate(spec, data_dir)
        chosen = choose_rows(spec, located)
        spec, parts, guessed = read_columns(spec, chosen)
        notes = [*notes, *guessed]
        tables = {name: table.read() for name, table in parts.items()}
    text = spec.text_column or (card.text_column if card else None)
    label = spec.label_column or (card.label_column if card else None)
    frames = []
    for split in (name for name in ORDER if name in tables):
        where = spec.name if split == "all" else f"{spec.name} ({split})"
        frame, more = clean(tables[split], where=where, text_column=text, label_column=label,
                            names=card.classes if card else ())  # fmt: skip
        frames.append(frame[["row", "text", "label"]].assign(split=split))
        notes = [*notes, *more]
    rows = pd.concat(frames, ignore_index=True)
    rows["key"] = [normalize_text(text) for text in rows["text"]]
    languages = tuple(card.language.split()) if card else ()
    return LabeledSource(
        spec.name, tables, rows, languages, tuple(notes), label or LabeledSource.label_column
    )


def _as_tables(data: Dataset) -> dict[str, pd.DataFrame]:
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        name: pd.DataFrame({"text": s.texts, "label": [data.classes[i] for i in s.labels]})
        for name, s in splits.items()
    }


def find_leaks(source: LabeledSource, near: pd.DataFrame) -> list[Finding]:
    """Rows of a split whose text is in another one too, word for word or nearly.

    Args:
        source: The rows.
        near: Of ``near_pairs`` on all rows.
    """
    splits = source.splits
    return [
        _leak(source, near, name, other)
        for i, name in enumerate(splits)
        for other in splits[i + 1 :]
    ]


def _leak(source: LabeledSource, near: pd.DataFrame, name: str, other: str) -> Finding:
    rows = source.rows
    split = rows["split"].to_numpy()
    theirs = rows[split == other].drop_duplicates("key").set_index("key")["row"]
    own = rows[split == name]
    exact = own[own["key"].isin(theirs.index)]
    place = {(s, r): i for i, (s, r) in enumerate(zip(rows["split"], rows["row"], strict=True))}
    partners = [place[(other, theirs[key])] for key in exact["key"]]
    pairs = _pairs(exact.index, partners)
    across = near[
        (split[near["first"]] == name)
        & (split[near["second"]] == other)
        & ~near["first"].isin(exact.index)
    ]
    best = across.sort_values("similarity", ascending=False).drop_duplicates("first")
    pairs = pd.concat([pairs, best], ignore_index=True)
    labels = rows["label"].to_numpy()
    differ = int((labels[pairs["first"]] != labels[pairs["second"]]).sum())
    fraction, total = len(pairs) / max(1, len(own)), len(own)
    check = f"leak-{name}-{other}"
    if not len(pairs):
        return Finding(check, "fine", f"No {name} text is also in {other}.")
    line = (
        f"{len(pairs)} of {total} {name} texts ({fraction:.1%}) are also in {other}: "
        f"{len(exact)} identical, {_count(len(best), 'near-duplicate')}; {differ} with "
        "different labels. "
    )
    if fraction < SERIOUS_FRACTION:
        line += "Too few to matter."
    elif name == "test":
        line += "Test scores will be too high."
    else:
        line += f"Choices made on {name} rows will favor memorization."
    level: Level = "problem" if fraction >= SERIOUS_FRACTION else "warning"
    return Finding(check, level, line, len(pairs), _pair_table(rows, pairs))


def _pairs(first: Sequence[int] | pd.Index, second: Sequence[int]) -> pd.DataFrame:
    """Rows that are the same word for word; the places stay whole numbers where there is none."""
    return pd.DataFrame({
        "first": np.asarray(first, dtype=np.int64), "second": np.asarray(second, dtype=np.int64),
        "similarity": np.ones(len(second)),
    })  # fmt: skip


def _pair_table(rows: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    left = rows.loc[pairs["first"], ROW_COLUMNS].reset_index(drop=True)
    right = rows.loc[pairs["second"], ROW_COLUMNS].reset_index(drop=True).add_prefix("other_")
    table = pd.concat([left, right], axis=1)
    return table.assign(similarity=pairs["similarity"].round(3).to_numpy())


def find_duplicates(source: LabeledSource, near: pd.DataFrame) -> list[Finding]:
    """Rows of a split whose text is in the same split before them, word for word or nearly."""
    findings = []
    for split in source.splits:
        rows = source.rows
        own = rows[rows["split"] == split]
        duplicates = own[own.duplicated("key")]
        firsts = own.drop_duplicates("key")
        first_of = dict(zip(firsts["key"], firsts.index, strict=True))
        pairs = _pairs(duplicates.index, [first_of[key] for key in duplicates["key"]])
        inside = near[near["first"].isin(firsts.index) & near["second"].isin(firsts.index)]
        inside = inside.sort_values("similarity", ascending=False).drop_duplicates("second")
        swapped = inside.rename(columns={"first": "second", "second": "first"})
        pairs = pd.concat([pairs, swapped], ignore_index=True)
        name = f"copies-{split}"
        if not len(pairs):
            findings.append(Finding(name, "fine", f"No {source.shown(split)}text is repeated."))
            continue
        labels = rows["label"].to_numpy()
        differ = int((labels[pairs["first"]] != labels[pairs["second"]]).sum())
        line = (
            f"{_count(len(duplicates), 'exact duplicate')} and "
            f"{_count(len(inside), 'near-duplicate')} among {len(own)} {source.shown(split)}rows; "
            f"{differ} with different labels."
        )
        level: Level = "warning" if len(pairs) >= SERIOUS_FRACTION * len(own) else "fine"
        findings.append(Finding(name, level, line, len(pairs), _pair_table(rows, pairs)))
    return findings


def find_contradictions(source: LabeledSource) -> Finding:
    """Texts that occur with several labels."""
    rows = source.rows
    kinds = rows.groupby("key")["label"].nunique()
    bad = rows[rows["key"].isin(kinds[kinds > 1].index)]
    if not len(bad):
        return Finding("contradictions", "fine", "No text has two labels.")
    count = bad["key"].nunique()
    table = bad.assign(group=bad.groupby("key", sort=False).ngroup() + 1)
    table = table.sort_values("group", kind="stable")[["group", *ROW_COLUMNS]].reset_index(
        drop=True
    )
    level: Level = "problem" if len(bad) >= SERIOUS_FRACTION * len(rows) else "warning"
    line = f"{count} texts have more than one label ({len(bad)} rows); no model can predict both."
    return Finding("contradictions", level, line, len(bad), table)


def find_label_variants(source: LabeledSource) -> Finding:
    """Labels that are likely one label written in several ways."""
    counts = source.rows["label"].value_counts()
    names = [str(name) for name in counts.index]
    records = []
    for i, common in enumerate(names):
        for rare in names[i + 1 :]:
            why = _same_label(common, rare)
            if why:
                records.append({"label": rare, "rows": int(counts[rare]), "is_like": common,
                                "rows_of_it": int(counts[common]), "why": why})  # fmt: skip
    if not records:
        return Finding("labels", "fine", f"The {len(names)} label names are clearly different.")
    table = pd.DataFrame(records)
    sure = table[table["why"] != "looks alike"]
    first = records[0]
    line = (
        f"{len(table)} labels look like different spellings of another (such as "
        f"{first['label']!r} and {first['is_like']!r}); rename them, or each counts as a class."
    )
    return Finding("labels", "problem" if len(sure) else "warning", line, len(table), table)


def _same_label(common: str, rare: str) -> str | None:
    bare = [_bare(name) for name in (common, rare)]
    if not all(bare):
        return None
    if bare[0] == bare[1]:
        return "same letters"
    long, short = sorted(bare, key=len, reverse=True)
    if any(sign.isdigit() for sign in long) or long.endswith(short):
        return None  # "class 1" and "class 2", "unhappy" and "happy" are different on purpose
    if len(short) > LONGEST_AFFIX and long.startswith(short):
        return "abbreviation"
    alike = difflib.SequenceMatcher(None, long, short).ratio() >= MIN_RATIO
    return "looks alike" if alike else None


def _bare(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in folded if sign.isalnum())


def find_class_sizes(source: LabeledSource) -> Finding:
    """Classes with too few rows, and splits that lack one."""
    table = pd.crosstab(source.rows["label"], source.rows["split"])[source.splits[::-1]]
    trained = table[source.training]
    unseen = [str(c) for c in table.index[trained == 0]]
    few = [str(c) for c in table.index[(trained > 0) & (trained < MIN_TRAIN_ROWS)]]
    ratio = int(trained.max()) / max(1, int(trained[trained > 0].min()))
    lines = [
        f"{len(table)} classes; the largest has {ratio:.1f} times as many rows as the smallest."
    ]
    if unseen:
        lines.append(f"{_some(unseen)}: no rows in {source.training}, so no model can learn it.")
    if few:
        lines.append(f"{_some(few)}: fewer than {MIN_TRAIN_ROWS} rows in {source.training}.")
    if "test" in table and source.training != "test":
        thin = [str(c) for c in table.index[table["test"] < MIN_TEST_ROWS]]
        if thin:
            lines.append(
                f"{_some(thin)}: fewer than {MIN_TEST_ROWS} test rows, so their scores are "
                f"unreliable."
            )
    level: Level = "problem" if unseen else "warning" if len(lines) > 1 else "fine"
    shown = table.sort_values(source.training, ascending=False).reset_index()
    shown.columns.name = None
    return Finding("sizes", level, " ".join(lines), len(set(unseen) | set(few)), shown)


def find_truncated(source: LabeledSource, lengths: np.ndarray, limit: int) -> Finding:
    """Texts longer than the encoder's limit.

    Args:
        source: The rows.
        lengths: (N,) tokens of every row's text.
        limit: Tokens at which a text is truncated.
    """
    rows = source.rows.assign(tokens=lengths)
    long = rows[rows["tokens"] > limit]
    if not len(long):
        most = int(lengths.max(initial=0))
        line = f"No text is longer than {limit} tokens; the longest has {most}."
        return Finding("cut", "fine", line)
    enough = int(np.ceil(np.quantile(lengths, 0.99)))
    per = long["split"].value_counts() / rows["split"].value_counts()
    fractions = ", ".join(f"{split} {float(per.get(split, 0) or 0):.1%}" for split in source.splits)
    are = "text is" if len(long) == 1 else "texts are"
    line = f"{len(long)} {are} longer than {limit} tokens"
    if enough > limit:
        line += (
            f" ({fractions}) and will be truncated; --set encoder.max_length={enough} reads 99% "
            "of the texts whole."
        )
    else:
        line += "; nothing to do."
    level: Level = "problem" if len(long) > 0.2 * len(rows) else "warning"
    table = long.sort_values("tokens", ascending=False)[["tokens", *ROW_COLUMNS]].reset_index(
        drop=True
    )
    return Finding("cut", level, line, len(long), table)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - 5
    return ", ".join(repr(n) for n in names[:5]) + (f" and {more} more" if more > 0 else "")
