"""``valence data``: what corpora there are, what one holds, and what a cut leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console, encoder_coverage, import_
from valence.cli.compare import (
    DataDir,
    Json,
    LabelColumn,
    Query,
    Settings,
    TableName,
    TextColumn,
    settings,
)
from valence.errors import DataError

if TYPE_CHECKING:
    from valence.data.dataset import Dataset

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Corpora: list, show, import, cut to a long tail.",
)
app.command("import")(import_.import_)
app.command("readiness")(encoder_coverage.readiness)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the corpora known by name."""
    from valence.data.catalogue import DATASETS

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
    console.print_table(["name", "classes", "language", "what it is", "from"], rows)


@app.command()
def show(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    set_: Settings = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and cuts.")] = 45,
    json: Json = False,
) -> None:
    """Show rows per class and split, notes, and a few texts."""
    from valence.config.data import DataSpec
    from valence.config.spec import RunSpec
    from valence.data.sources import load_dataset

    rows_of = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )
    spec = RunSpec(data=rows_of, seed=seed).override(settings(set_))
    found = load_dataset(spec.data, seed=seed, data_dir=data_dir)
    counts = _table(found)
    if json:
        console.print_json({"name": found.name, "notes": found.notes, "classes": counts})
        return
    rows = [
        [r["class"] + (" *" if r["tail"] else ""), *(str(r[s]) for s in SPLITS)] for r in counts
    ]
    totals = [str(sum(r[s] for r in counts)) for s in SPLITS]
    console.print_table(["class (* tail)", *SPLITS], [*rows, ["all", *totals]])
    for note in found.notes:
        console.say(f"Note: {note}")
    for text, label in list(zip(found.train.texts, found.train.labels, strict=True))[:3]:
        console.say(f"  {found.classes[label]}: {text[:100]}")


@app.command()
def longtail(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for train.csv, validation.csv, test.csv.")],
    ratio: Annotated[float | None, typer.Option(help="Largest class over smallest.")] = None,
    total: Annotated[int | None, typer.Option(help="Training rows in all.")] = None,
    head: Annotated[int | None, typer.Option(help="Training rows of the largest class.")] = None,
    profile: Annotated[str, typer.Option(help="exponential or step.")] = "exponential",
    noise: Annotated[float, typer.Option(help="Share of wrong training labels.")] = 0.0,
    noise_kind: Annotated[str, typer.Option(help="symmetric or confusable.")] = "symmetric",
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and cuts.")] = 45,
) -> None:
    """Cut the training rows to a long tail; write the splits and a picture; test stays whole."""
    from valence.config.data import DataSpec
    from valence.config.spec import build
    from valence.reports.longtail import write_cut

    if ratio is None and total is None and not noise:
        raise DataError("Say how to cut: --ratio 20, --total 1000, or both")
    values = {
        "name": data, "text_column": text_column, "label_column": label_column,
        "imbalance_ratio": ratio, "train_total": total, "head_count": head, "profile": profile,
        "noise_share": noise, "noise": noise_kind,
    }  # fmt: skip
    found = write_cut(build(DataSpec, values), out, seed=seed, data_dir=data_dir)
    console.print_table(["class", "train"], [[r["class"], str(r["train"])] for r in _table(found)])
    for note in found.notes:
        console.say(f"Note: {note}")
    console.say(f"Written: {out}")


SPLITS = ("train", "validation", "test")


def _table(found: Dataset) -> list[dict[str, Any]]:
    counts = {name: getattr(found, name).counts(len(found.classes)) for name in SPLITS}
    return [
        {"class": label, "tail": i in found.tail, **{n: int(c[i]) for n, c in counts.items()}}
        for i, label in enumerate(found.classes)
    ]
