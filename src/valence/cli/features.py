"""``valence features``: audio and vision features of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.compare import Json, Quiet

if TYPE_CHECKING:
    from valence.data.features.archive import FeatureArchive

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Audio and vision features: convert, extract, show.",
)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A feature file of the MMSA layout (.pkl).")],
    out: Annotated[Path, typer.Option(help="Folder for the archive.")],
    json: Json = False,
) -> None:
    """Convert a pickle of features to an archive that is read row by row; nothing in it runs."""
    from valence.data.features.convert import convert as convert_file

    archive = convert_file(file, out)
    _tell(archive, as_json=json)
    console.info(f"Archive: {out}")


@app.command()
def extract(
    clip: Annotated[
        Path,
        typer.Argument(help="A sound or video file, or a table: clip, text, label, split."),
    ],
    out: Annotated[
        Path, typer.Option(help="A .safetensors file for a clip, a folder for a table.")
    ],
    audio: Annotated[
        str, typer.Option(help="mel, or a hub name or folder of an audio encoder.")
    ] = "mel",
    vision: Annotated[
        str, typer.Option(help="frames, or a hub name or folder of an image encoder.")
    ] = "frames",
    frames_per_second: Annotated[float, typer.Option(min=0.01, help="Frames to read.")] = 5.0,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Most of a clip to read.")] = 120.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make features of one's own clips; a table of clips becomes an archive to train on."""
    from valence.data.features.clip_table import archive_clips
    from valence.data.features.extractor import Extractor, ExtractorSettings, save_clip
    from valence.data.tables import SUFFIXES

    settings = ExtractorSettings(
        audio=audio, vision=vision, frames_per_second=frames_per_second, max_seconds=max_seconds
    )
    extractor = Extractor(settings)
    if clip.suffix.lower() in SUFFIXES:
        with console.Meter(quiet=quiet) as meter:
            archive = archive_clips(
                clip, out, extractor,
                progress=lambda done, of: meter.show("clips", done / of, f"{done}/{of}"),
            )  # fmt: skip
        _tell(archive, as_json=json)
        return
    features = extractor(clip)
    save_clip(features, settings, out)
    sizes = {"audio": list(features.audio.shape), "vision": list(features.vision.shape)}
    if json:
        console.print_json({**sizes, "notes": features.notes})
        return
    console.print_table(
        ["modality", "steps", "width"], [[m, str(n), str(d)] for m, (n, d) in sizes.items()]
    )
    for note in features.notes:
        console.info(f"Note: {note}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A folder that valence features convert wrote.")],
    json: Json = False,
) -> None:
    """Show rows, labels, widths and lengths of an archive, and what was mended in it."""
    from valence.data.features.archive import FeatureArchive

    _tell(FeatureArchive.open(folder), as_json=json)


@app.command()
def cards(json: Json = False) -> None:
    """List the multimodal corpora known by name, and where their feature files are."""
    from dataclasses import asdict

    from valence.data.features.archive import FEATURE_CARDS

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
    from valence.data.features.archive import SPLITS
    from valence.data.features.mmsa import FEATURES

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
    console.info(f"Numbers in a step: {widths}")
    for modality, kinds in archive.manifest.zeroed.items():
        for kind, count in kinds.items():
            if count:
                console.info(f"Note: {count} of {kind} in {modality} read as 0")
    for note in archive.manifest.notes:
        console.info(f"Note: {note}")
