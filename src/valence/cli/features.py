"""``valence features``: audio and vision features of a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.options import Encoding, Json, OptionGroup, OutputOptions, with_groups
from valence.cli.tables import print_table
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.data.features.archive import FeatureArchive
    from valence.data.features.extractor import ExtractorSettings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Prepare audio and vision features.",
)


@app.command()
@with_groups
def convert(
    file: Annotated[Path, typer.Argument(help="Feature file in the MMSA layout (.pkl).")],
    out: Annotated[Path, typer.Option(help="Folder for the archive.")],
    output: OutputOptions,
) -> None:
    """Convert a feature pickle to a safe archive, without running its code."""
    from valence.data.features.convert import convert as convert_file

    archive = convert_file(file, out)
    _print(archive, output)
    if not output.quiet:
        console.info(f"Archive: {out}")


@dataclass(frozen=True, kw_only=True)
class ExtractorOptions(OptionGroup):
    """How features are made."""

    audio: Annotated[str, typer.Option(help="mel, or an audio encoder (hub name or folder).")] = (
        "mel"
    )
    vision: Annotated[
        str, typer.Option(help="frames, or an image encoder (hub name or folder).")
    ] = "frames"
    frames_per_second: Annotated[float, typer.Option(min=0.01, help="Frames per second.")] = 5.0
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Maximum seconds per clip.")] = 120.0

    def settings(self) -> ExtractorSettings:
        """The same as the extractor takes it."""
        from valence.data.features.extractor import ExtractorSettings

        return ExtractorSettings(
            audio=self.audio, vision=self.vision, frames_per_second=self.frames_per_second,
            max_seconds=self.max_seconds,
        )  # fmt: skip


@app.command()
@with_groups
def extract(
    clip: Annotated[
        Path,
        typer.Argument(help="A clip, or a table with the columns clip, text, label, split."),
    ],
    out: Annotated[
        Path, typer.Option(help="A .safetensors file (for a clip) or folder (for a table).")
    ],
    how: ExtractorOptions,
    output: OutputOptions,
    encoding: Encoding = None,
) -> None:
    """Extract features from your own clips."""
    from valence.data.features.clip_table import archive_clips
    from valence.data.features.extractor import Extractor
    from valence.data.tables import SUFFIXES

    settings = how.settings()
    if clip.suffix.lower() not in SUFFIXES:
        if encoding is not None:
            raise SpecError("--encoding is for tables of clips; omit it")
        _extract_one(clip, settings, out, output)
        return
    with console.Meter(quiet=output.quiet) as meter:
        archive = archive_clips(
            clip, out, Extractor(settings), encoding=encoding,
            progress=lambda done, of: meter.show_timed(
                "clips", done / max(1, of), f"{done} of {of}"
            ),
        )  # fmt: skip
    _print(archive, output)


def _extract_one(clip: Path, settings: ExtractorSettings, out: Path, output: OutputOptions) -> None:
    from valence.data.features.extractor import Extractor, save_clip

    features = Extractor(settings)(clip)
    save_clip(features, settings, out)
    sizes = {"audio": list(features.audio.shape), "vision": list(features.vision.shape)}
    if output.json:
        console.print_json({**sizes, "notes": features.notes})
        return
    print_table(
        ["modality", "steps", "width"], [[m, str(n), str(d)] for m, (n, d) in sizes.items()]
    )
    for note in features.notes if not output.quiet else ():
        console.info(f"Note: {note}")


@app.command()
@with_groups
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of valence features convert or extract.")],
    output: OutputOptions,
) -> None:
    """Show the rows, labels and sizes of an archive."""
    from valence.data.features.archive import FeatureArchive

    _print(FeatureArchive.open(folder), output)


@app.command()
def cards(json: Json = False) -> None:
    """List multimodal corpora and where to get their feature files."""
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
    print_table(columns, rows)


def _sizes(numbers: tuple[int, ...]) -> str:
    return "/".join(str(n) for n in numbers)


def _print(archive: FeatureArchive, output: OutputOptions) -> None:
    from valence.data.features.archive import SPLITS
    from valence.data.features.mmsa import FEATURES

    manifest = archive.manifest
    if output.json:
        console.print_json(manifest.model_dump())
        return
    rows = []
    for name in SPLITS:
        split = archive.split(name)
        row = [name, str(len(split)), f"{split.labels.min():g} to {split.labels.max():g}"]
        for modality in FEATURES:
            lengths = split.lengths[modality]
            row += [f"{lengths.mean():.1f}", str(lengths.max())]
        rows.append(row)
    heads = [f"{m} {what}" for m in FEATURES for what in ("mean steps", "most steps")]
    print_table(["split", "rows", "labels", *heads], rows)
    if output.quiet:
        return
    widths = ", ".join(f"{m} {manifest.widths[m]}" for m in FEATURES)
    console.info(f"Features per step: {widths}")
    for modality, kinds in manifest.zeroed.items():
        for kind, count in kinds.items():
            if count:
                console.info(f"Note: {count} of {kind} in {modality} read as 0")
    for note in manifest.notes:
        console.info(f"Note: {note}")
