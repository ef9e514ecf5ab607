"""Which rows are used: :class:`DataSpec`, a part of every ``RunSpec``."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from valence.config.database_url import is_sql_url, refuse_password
from valence.config.sections import Count, Fraction, Section
from valence.errors import SpecError


class DataSpec(Section):
    """Which rows are used, and how they are subsampled.

    At most one of ``train_counts``, ``train_total`` and ``imbalance_ratio`` subsamples the
    training rows; ``train_total`` and ``imbalance_ratio`` may be combined.
    """

    name: str = "demo"
    """A card of ``DATASETS``, a file, a folder of split files, a hub id, or the URL of a
    database, its password written as ``${NAME}``."""
    target: Literal["classes", "intensity"] = "classes"
    """What is predicted: a class, or a number (the label column holds numbers then)."""
    features: str | None = None
    """Audio and vision of the rows: a feature archive, an MMSA pickle, or ``none``. When not
    given, looked for in the corpus's own folder."""
    text_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    """The column of a file that says which split a row is of, or ``none``; ``split`` when not
    given, if there is such a column and it names splits."""
    query: str | None = None
    """A SELECT whose rows are used, of a database."""
    table: str | None = None
    """The table that is read, of a database; its only one when not given."""
    query_timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds that a database may work on the rows; 300 when not given."""
    encoding: str | None = None
    """The encoding of CSV, TSV and JSONL files, as Python names it; UTF-8 when not given, with
    or without a byte order mark."""
    header: bool = True
    """Whether the first line of CSV and TSV files names the columns; else they are called
    ``column 1``, ``column 2`` and so on."""
    normalize_labels: bool = False
    """Whether labels that differ in case, spaces, invisible characters or composition alone are
    one class, under its most frequent spelling."""
    group: str | None = None
    """The column whose values (languages, domains) are scored one by one; ``language`` when not
    given, if there is such a column or one folder per language."""
    groups: tuple[str, ...] | None = None
    """The groups whose rows are used; all when not given."""
    train_groups: tuple[str, ...] | None = None
    """The groups of the training and validation rows, where the test rows have others."""
    group_rows: dict[str, Count] | None = None
    """Labeled rows of single groups that training and validation have between them, drawn by
    ``cut_seed`` with the group's class shares; all of them where a group is not named."""
    sample: Count | None = None
    """Training rows drawn at random, by ``cut_seed``, before any other subsampling; the
    source is not loaded whole. Where splits are made here, they are made of the drawn rows."""
    classes: tuple[str, ...] | None = None
    """The order of the classes; the card's order, else sorted, when not given."""
    tail: tuple[str, ...] | None = None
    """The tail classes; the third with the fewest training rows when not given."""
    train_counts: dict[str, Annotated[int, Field(ge=0)]] | None = None
    train_total: Count | None = None
    imbalance_ratio: Annotated[float, Field(ge=1)] | None = None
    """Size of the largest class over the smallest."""
    head_count: Count | None = None
    """Rows of the largest class under ``imbalance_ratio``; a class with fewer rows than
    the profile asks for keeps all of them. Without it the profile is scaled so that every
    class has enough rows."""
    profile: Literal["exponential", "step"] = "exponential"
    noise_share: Fraction = 0.0
    """Fraction of the training labels replaced by wrong ones, after subsampling."""
    noise: Literal["symmetric", "confusable"] = "symmetric"
    """Wrong labels are drawn from all other classes, or from those with similar texts."""
    validation_per_class: Count | None = None
    """Balanced validation rows; all validation rows when not given."""
    test_per_class: Count | None = None
    """Balanced test rows, as for costly language models; all test rows when not given."""
    validation_share: Fraction = 0.1
    """Fraction of the training rows used for validation where no split is given."""
    test_share: Fraction = 0.2
    """Fraction of all rows used as test where no split is given."""
    cut_seed: int | None = None
    """Seed of splits and subsampling; the run's seed when not given, so that the spread over
    seeds covers the draw of a handful of tail rows, which matters more than the
    initial weights."""

    @field_validator("name")
    @classmethod
    def _no_password(cls, name: str) -> str:
        refuse_password(name)
        return name

    @field_validator("encoding")
    @classmethod
    def _one_name_per_encoding(cls, encoding: str | None) -> str | None:
        if encoding is None:
            return None
        try:
            "".encode(encoding)  # codecs that are no text encoding refuse here
            name = codecs.lookup(encoding).name
        except (LookupError, ValueError):
            raise SpecError(
                f"Encoding {encoding!r} is unknown; use for example latin-1, cp1252 or utf-16"
            ) from None
        return None if name in ("utf-8", "utf-8-sig") else name

    @model_validator(mode="after")
    def _one_query(self) -> DataSpec:
        if self.query and self.table:
            raise SpecError("Use either a query or a table, not both")
        if self.encoding and is_sql_url(self.name):
            raise SpecError("The setting encoding is for files, not databases; remove it")
        if (self.query or self.table) and not is_sql_url(self.name):
            option = "query" if self.query else "table"
            raise SpecError(
                f"The setting {option} is for databases, not for {self.name!r}; "
                "use a URL such as sqlite:///tweets.db"
            )
        if self.query_timeout and not is_sql_url(self.name):
            raise SpecError("The setting query_timeout is for databases; remove it")
        return self

    @model_validator(mode="after")
    def _one_subsampling(self) -> DataSpec:
        if self.train_counts is not None and (self.train_total or self.imbalance_ratio):
            raise ValueError("use either train_counts, or train_total and imbalance_ratio")
        if self.head_count is not None and (self.train_total or self.imbalance_ratio is None):
            raise ValueError("head_count needs imbalance_ratio and excludes train_total")
        return self
