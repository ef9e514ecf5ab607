"""``valence data readiness``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from valence.cli import console
from valence.cli.compare import (
    DataDir,
    Encoder,
    Group,
    Groups,
    Json,
    LabelColumn,
    Query,
    Settings,
    TableName,
    TextColumn,
    group_settings,
    settings,
)


def readiness(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    encoder: Encoder = None,
    group: Group = None,
    groups: Groups = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    query: Query = None,
    table: TableName = None,
    set_: Settings = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and cuts.")] = 45,
    json: Json = False,
) -> None:
    """Say how well an encoder can read the texts of every language, before any training."""
    from valence.audit.encoder_coverage import readiness as entries_of
    from valence.audit.encoder_coverage import script_mix, write_readiness
    from valence.config.data import DataSpec
    from valence.data.sources import load_dataset
    from valence.methods.registry import make_spec

    rows_of = DataSpec(
        name=data, text_column=text_column, label_column=label_column, query=query, table=table
    )
    given = {**group_settings(group, groups), **settings(set_, encoder=encoder)}
    spec = make_spec("cross-entropy", rows_of, seed=seed, settings=given)
    found = load_dataset(spec.data, seed=seed, data_dir=data_dir)
    entries = entries_of(found, spec.get("encoder"))
    if csv is not None:
        write_readiness(entries, csv)
    if json:
        console.print_json(
            {"encoder": spec.get("encoder.name"), "groups": [e.record() for e in entries]}
        )
        return
    rows = [
        [e.group, str(e.train), str(e.validation), str(e.test), f"{e.smallest} {e.smallest_rows}",
         str(e.tail_rows), f"{e.tokens:.0f}", f"{e.tokens_per_word:.2f}", f"{e.unknown:.1%}",
         f"{e.over_limit:.0%}", script_mix(e)]
        for e in entries
    ]  # fmt: skip
    heads = [found.group or "group", "train", "validation", "test", "smallest class", "tail rows",
             "tokens", "tokens/word", "unknown", "over limit", "scripts"]  # fmt: skip
    console.print_table(heads, rows)
    for entry in entries:
        for line in entry.warnings:
            console.say(f"Warning: {entry.group}: {line}")
    if csv is not None:
        console.say(f"Written: {csv}")
