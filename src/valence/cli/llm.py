"""``valence llm``: instructions for, questions to, and fine-tuning of language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from valence.cli import console
from valence.cli.compare import DataDir, Device, Encoder, Json, LabelColumn, Quiet, TextColumn

app = typer.Typer(no_args_is_help=True, help="Language models: instructions, answers, fine-tuning.")

Pool = Annotated[str, typer.Option(help="Take demonstrations from: language (its own), or all.")]
Pooling = Annotated[str, typer.Option(help="How texts become vectors: mean, cls, max, pooler.")]
LanguageColumn = Annotated[
    str | None, typer.Option(help="Column that names the language; language when there is one.")
]


@app.command()
def instructions(
    data: Annotated[str, typer.Argument(help="A file, folder, card or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the records.")],
    template: Annotated[
        str, typer.Option(help="self-alignment, options, or a YAML file.")
    ] = "self-alignment",
    pool: Pool = "language",
    pooling: Pooling = "mean",
    encoder: Encoder = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a text that are compared.")] = 128,
    language_column: LanguageColumn = None,
    data_dir: DataDir = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a record for every text: the question, the likest training text of each label.

    Files for LLaMA-Factory, chat and prompt-completion JSONL; one folder per language.
    """
    from valence.errors import UnknownNameError
    from valence.llm.instruct import make_instructions
    from valence.llm.retrieval import Embedder
    from valence.spec import BUILT_IN_ENCODER, DataSpec, EncoderSpec, build

    if pool not in ("language", "all"):
        raise UnknownNameError("pool", pool, ("language", "all"))
    named = build(EncoderSpec, {"name": encoder or BUILT_IN_ENCODER, "max_length": max_length})
    embedder = Embedder(named, pooling, device=device or "auto")
    with console.Meter(quiet=quiet) as meter:
        about = make_instructions(
            DataSpec(name=data, text_column=text_column, label_column=label_column), out,
            template=template, embedder=embedder, pool="all" if pool == "all" else "language",
            language_column=language_column, data_dir=data_dir,
            progress=lambda done, all_: meter.show("embedding", done / all_, f"{done} of {all_}"),
        )  # fmt: skip
    if not quiet:
        for note in about.notes:
            console.say(f"Note: {note}")
        console.say(f"Instructions: {out}")
    if json:
        console.print_json(about.model_dump(mode="json"))
        return
    splits = list(dict.fromkeys(name for counts in about.groups.values() for name in counts))
    rows = [
        [language or about.data, *(str(counts.get(name, 0)) for name in splits)]
        for language, counts in about.groups.items()
    ]
    console.print_table(["language" if len(rows) > 1 else "data", *splits], rows)
