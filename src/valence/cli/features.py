"""``valence features``: audio and vision features of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.compare import Json

if TYPE_CHECKING:
    from valence.data.features import FeatureArchive

app = typer.Typer(no_args_is_help=True, help="Audio and vision features: convert, show.")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A feature file of the MMSA layout (.pkl).")],
    out: Annotated[Path, typer.Option(help="Folder for the archive.")],
    json: Json = False,
) -> None:
    """Convert a pickle of features to an archive that is read row by row; nothing in it runs."""
    from valence.data.feature_convert import convert as convert_file

    archive = convert_file(file, out)
    _tell(archive, as_json=json)
    console.say(f"Archive: {out}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A folder that valence features convert wrote.")],
    json: Json = False,
) -> None:
    """Show rows, labels, widths and lengths of an archive, and what was mended in it."""
    from valence.data.features import FeatureArchive

    _tell(FeatureArchive.open(folder), as_json=json)


@app.command()
def cards(json: Json = False) -> None:
    """List the multimodal corpora known by name, and where their feature files are."""
    from dataclasses import asdict

    from valence.data.features import FEATURE_CARDS

    if json:
        console.print_json({name: asdict(card) for name, card in FEATURE_CARDS.items()})
        return
    rows = [
        [name, card.language, "{:g} to {:g}".format(*card.label_range), _sizes(card.steps),
         _sizes(card.widths), _sizes(card.rows), card.files]
        for name, card in FEATURE_CARDS.items()
    ]  # fmt: skip
    columns = ["name", "language", "labels", "steps t/a/v", "widths t/a/v", "rows", "from"]
    console.print_table(columns, rows)


def _sizes(numbers: tuple[int, ...]) -> str:
    return "/".join(str(n) for n in numbers)


def _tell(archive: FeatureArchive, *, as_json: bool) -> None:
    if as_json:
        console.print_json(archive.manifest.model_dump())
        return
    from valence.data.features import SPLITS
    from valence.data.mmsa import FEATURES

    rows = []
    for name in SPLITS:
        split = archive.split(name)
        row = [name, str(len(split)), f"{split.labels.min():g} to {split.labels.max():g}"]
        for modality in FEATURES:
            lengths = split.lengths[modality]
            row += [f"{lengths.mean():.1f}", str(lengths.max())]
        rows.append(row)
    heads = [f"{m} {what}" for m in FEATURES for what in ("mean steps", "most steps")]
    console.print_table(["split", "rows", "labels", *heads], rows)
    widths = ", ".join(f"{m} {archive.manifest.widths[m]}" for m in FEATURES)
    console.say(f"Numbers in a step: {widths}")
    for modality, kinds in archive.manifest.zeroed.items():
        for kind, count in kinds.items():
            if count:
                console.say(f"Note: {count} of {kind} in {modality} read as 0")
    for note in archive.manifest.notes:
        console.say(f"Note: {note}")
