"""``valence data readiness``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valence.cli import console
from valence.cli.options import (
    DataOptions,
    Encoder,
    OutputOptions,
    Seed,
    encoder_settings,
    with_groups,
)
from valence.cli.tables import print_table

if TYPE_CHECKING:
    from valence.audit.encoder_coverage import Readiness

COUNTS = ("train", "validation", "test")
HEADS = (
    "smallest class", "tail rows", "tokens", "tokens/word", "unknown", "over limit", "scripts",
)  # fmt: skip


@with_groups
def readiness(
    data: DataOptions,
    output: OutputOptions,
    encoder: Encoder = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file, too.")] = None,
    seed: Seed = 45,
) -> None:
    """Check how well an encoder reads your texts, per language."""
    from valence.audit.encoder_coverage import readiness as read_by_group
    from valence.audit.encoder_coverage import write_readiness
    from valence.data.sources import load_dataset
    from valence.methods.registry import make_spec

    data.refuse_other_settings("data", "encoder")
    rows = data.spec(data.data)
    settings = {**encoder_settings(encoder), **data.settings()}
    spec = make_spec("cross-entropy", rows, settings=settings)
    dataset = load_dataset(spec.data, seed=seed, data_dir=data.data_dir)
    entries = read_by_group(dataset, spec.get("encoder"))
    if csv is not None:
        write_readiness(entries, csv)
    if output.json:
        console.print_json(
            {"encoder": spec.get("encoder.name"), "groups": [e.record() for e in entries]}
        )
        return
    heads = [dataset.group or "group", *COUNTS, *HEADS]
    print_table(heads, [_row(entry) for entry in entries])
    if output.quiet:
        return
    for entry in entries:
        for line in entry.warnings:
            console.info(f"Warning: {entry.group}: {line}")
    if csv is not None:
        console.info(f"Written: {csv}")


def _row(entry: Readiness) -> list[str]:
    from valence.audit.encoder_coverage import script_mix

    return [
        entry.group, str(entry.train), str(entry.validation), str(entry.test),
        f"{entry.smallest} {entry.smallest_rows}", str(entry.tail_rows), f"{entry.tokens:.0f}",
        f"{entry.tokens_per_word:.2f}", f"{entry.unknown:.1%}", f"{entry.over_limit:.0%}",
        script_mix(entry),
    ]  # fmt: skip
