"""``valence import-model``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from valence.cli import console
from valence.cli.options import OutputOptions, with_groups


@with_groups
def import_model(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a transformers sequence classifier (safetensors).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    output: OutputOptions,
    labels: Annotated[
        str | None, typer.Option(help="Label names in the order of their ids: a,b,c.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=4, help="Maximum tokens per text; default: at most 512."),
    ] = None,
) -> None:
    """Import a classifier that you trained with another tool.

    Checks that the probabilities equal those of pipeline("text-classification"). Code in the
    folder is never run.
    """
    from valence.inference.import_model import import_model as bring

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    done = bring(folder, out, labels=names, max_length=max_length)
    if output.json:
        console.print_json(asdict(done))
    if output.quiet:
        return
    for note in done.notes:
        console.info(note)
    console.info(
        f"{len(done.classes)} labels ({', '.join(done.classes)}), {done.max_length} tokens of a "
        f"text; probabilities as in transformers, to {done.largest_difference:.0e}. Model: {out}"
    )
