"""``valence data``: what corpora there are, what one holds, and long-tailed subsamples."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console, encoder_coverage, import_
from valence.cli.options import (
    DataOptions,
    Json,
    OptionGroup,
    OutputOptions,
    Seed,
    with_groups,
)
from valence.cli.tables import LONGEST_TEXT, print_table, shorten
from valence.errors import DataError

if TYPE_CHECKING:
    from valence.data.dataset import Dataset

SPLITS = ("train", "validation", "test")
EXAMPLES = 8  # classes of which a text is shown
SHOWN_ROWS = 1_000_000

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Inspect, import and subsample data sets.",
)
app.command("import")(import_.import_)
app.command("readiness")(encoder_coverage.readiness)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the corpora you can use by name."""
    from valence.data.catalog import DATASETS

    if json:
        console.print_json(
            {n: {"title": c.title, "classes": c.classes} for n, c in DATASETS.items()}
        )
        return
    rows = [
        [name, str(len(card.classes)), card.language, card.title,
         card.hub[0] if card.hub else "built in" if name == "demo" else "files"]
        for name, card in DATASETS.items()
    ]  # fmt: skip
    print_table(["name", "classes", "language", "description", "from"], rows)


@app.command()
@with_groups
def show(
    data: DataOptions,
    output: OutputOptions,
    seed: Seed = 45,
    rows: Annotated[int, typer.Option(min=1, help="Maximum rows to read per split.")] = SHOWN_ROWS,
) -> None:
    """Show rows per class and split, and a few texts."""
    from valence.data.sources import load_dataset

    data.refuse_other_settings("data")
    dataset = load_dataset(data.spec(data.data), seed=seed, data_dir=data.data_dir, most_rows=rows)
    counts = _counts(dataset)
    if output.json:
        console.print_json({"name": dataset.name, "notes": dataset.notes, "classes": counts})
        return
    table = [
        [r["class"] + (" *" if r["tail"] else ""), *(str(r[s]) for s in SPLITS)] for r in counts
    ]
    totals = [str(len(getattr(dataset, split))) for split in SPLITS]
    print_table(["class (* tail)", *SPLITS], [*table, ["all", *totals]])
    if output.quiet:
        return
    _print_notes(dataset)
    _print_examples(dataset)


@dataclass(frozen=True, kw_only=True)
class LongTailOptions(OptionGroup):
    """How the training rows are subsampled."""

    ratio: Annotated[
        float | None, typer.Option(help="Ratio of the largest to the smallest class.")
    ] = None
    total: Annotated[int | None, typer.Option(help="Total training rows.")] = None
    head: Annotated[int | None, typer.Option(help="Training rows of the largest class.")] = None
    profile: Annotated[str, typer.Option(help="Shape of the tail: exponential or step.")] = (
        "exponential"
    )
    noise: Annotated[float, typer.Option(help="Fraction of wrong training labels.")] = 0.0
    noise_kind: Annotated[str, typer.Option(help="symmetric or confusable.")] = "symmetric"

    def settings(self) -> dict[str, Any]:
        """The dotted settings of the subsampling.

        Raises:
            DataError: if nothing is subsampled.
        """
        if self.ratio is None and self.total is None and not self.noise:
            raise DataError("Choose how to subsample: --ratio 20, --total 1000, or both")
        return {
            "data.imbalance_ratio": self.ratio, "data.train_total": self.total,
            "data.head_count": self.head, "data.profile": self.profile,
            "data.noise_share": self.noise, "data.noise": self.noise_kind,
        }  # fmt: skip


@app.command()
@with_groups
def longtail(
    data: DataOptions,
    out: Annotated[Path, typer.Option(help="Folder for train.csv, validation.csv, test.csv.")],
    how: LongTailOptions,
    output: OutputOptions,
    seed: Seed = 45,
) -> None:
    """Subsample the training rows to a long tail; test rows stay unchanged."""
    from valence.config.spec import RunSpec
    from valence.reports.longtail import write_long_tail

    settings = how.settings()
    data.refuse_other_settings("data")
    spec = RunSpec(data=data.spec(data.data)).override(settings).data
    dataset = write_long_tail(spec, out, seed=seed, data_dir=data.data_dir)
    counts = _counts(dataset)
    if output.json:
        console.print_json({"name": dataset.name, "notes": dataset.notes, "classes": counts})
    else:
        print_table(["class", "train"], [[r["class"], str(r["train"])] for r in counts])
    if not output.quiet:
        _print_notes(dataset)
        console.info(f"Written: {out}")


@app.command()
@with_groups
def merge(
    data: DataOptions,
    corrected: Annotated[
        Path,
        typer.Argument(help="Export of Label Studio or Argilla, or the sheet you filled in."),
    ],
    out: Annotated[
        Path, typer.Option(help="New CSV file, or a folder if DATA has several splits.")
    ],
    output: OutputOptions,
) -> None:
    """Merge corrected labels into your data, by the row ids of audit --to."""
    from dataclasses import asdict

    from valence.audit.checks import read_source
    from valence.audit.merge import merge_corrections, read_corrections

    data.refuse_other_settings("data")
    if not data.data.startswith(("http", "demo")) and Path(data.data).resolve() == out.resolve():
        raise DataError(f"--out {out} is the input; choose another name")
    source = read_source(data.spec(data.data), data.data_dir)
    report = merge_corrections(source, read_corrections(corrected), out)
    if output.json:
        console.print_json(asdict(report))
        return
    rows = [
        ["labels changed", str(report.changed)], ["labels confirmed", str(report.confirmed)],
        ["not answered", str(report.unanswered)],
    ]  # fmt: skip
    print_table(["corrections", "rows"], rows)
    if not output.quiet:
        console.info(f"Written: {', '.join(map(str, report.files))}")


def _print_notes(dataset: Dataset) -> None:
    for note in dataset.notes:
        console.info(f"Note: {note}")


def _print_examples(dataset: Dataset) -> None:
    """A training text of each class, or of a few intensities from low to high."""
    labels = dataset.train.labels
    if dataset.classes:
        present = [i for i in range(len(dataset.classes)) if (labels == i).any()]
        rows = [int((labels == i).argmax()) for i in present[:EXAMPLES]]
        left = len(present) - len(rows)
    else:
        order, last = labels.argsort(kind="stable"), len(labels) - 1
        rows, left = [int(order[round(last * i / 2)]) for i in range(3 if last > 1 else 0)], 0
    width = console.log().width if sys.stderr.isatty() else LONGEST_TEXT
    for row in rows:
        label = labels[row]
        name = dataset.classes[label] if dataset.classes else f"{label:g}"
        console.info(shorten(f"  {name}: {dataset.train.texts[row]}", width))
    if left:
        console.info(f"  {left} more classes")


def _counts(dataset: Dataset) -> list[dict[str, Any]]:
    """Rows per class and split."""
    counts = {name: getattr(dataset, name).counts(len(dataset.classes)) for name in SPLITS}
    return [
        {"class": label, "tail": i in dataset.tail, **{n: int(c[i]) for n, c in counts.items()}}
        for i, label in enumerate(dataset.classes)
    ]
