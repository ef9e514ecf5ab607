"""``valence llm``: instructions for, questions to, and fine-tuning of language models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from valence.cli import console, llm_classify, llm_finetune
from valence.cli.llm_classify import Pool
from valence.cli.options import (
    DataOptions,
    Encoder,
    HardwareOptions,
    OptionGroup,
    OutputOptions,
    Quiet,
    Seed,
    with_groups,
)
from valence.cli.tables import print_table
from valence.distributed import process_group
from valence.errors import UnknownNameError

if TYPE_CHECKING:
    from valence.llm.records import InstructionsInfo
    from valence.llm.retrieval import Embedder

app = typer.Typer(no_args_is_help=True, help="Prompt and fine-tune language models.")


@app.callback()
def _options(context: typer.Context) -> None:
    if context.invoked_subcommand != "finetune":
        process_group.require_single_process(
            f"valence llm {context.invoked_subcommand}", "start it without a launcher"
        )


@dataclass(frozen=True, kw_only=True)
class RecordOptions(OptionGroup):
    """How records are written."""

    template: Annotated[str, typer.Option(help="self-alignment, options, or a YAML file.")] = (
        "self-alignment"
    )
    pool: Pool = "language"
    pooling: Annotated[
        str, typer.Option(help="Pooling of texts into vectors: mean, cls, last, max, pooler.")
    ] = "mean"
    max_length: Annotated[int, typer.Option(help="Maximum tokens per text for the comparison.")] = (
        128
    )

    def source(self) -> Literal["language", "all"]:
        """The texts that demonstrations are taken from.

        Raises:
            UnknownNameError: if there are none of this name.
        """
        if self.pool not in ("language", "all"):
            raise UnknownNameError("pool", self.pool, ("language", "all"))
        return "all" if self.pool == "all" else "language"

    def embedder(self, encoder: str | None, device: str) -> Embedder:
        """What makes the vectors by which texts are compared.

        Raises:
            ModelError: if the encoder cannot be had.
        """
        from valence.config.sections import BUILT_IN_ENCODER, EncoderSpec
        from valence.config.spec import build
        from valence.llm.retrieval import Embedder

        named = {"name": encoder or BUILT_IN_ENCODER, "max_length": self.max_length}
        return Embedder(build(EncoderSpec, named), self.pooling, device=device)


@app.command()
@with_groups
def instructions(
    data: DataOptions,
    out: Annotated[Path, typer.Option(help="Folder for the records.")],
    records: RecordOptions,
    hardware: HardwareOptions,
    output: OutputOptions,
    encoder: Encoder = None,
    seed: Seed = 0,
) -> None:
    """Write instructions for fine-tuning: a prompt per text, with similar training texts.

    Writes LLaMA-Factory, chat and prompt-completion JSONL files; one folder per language.
    """
    from valence.llm.instruct import make_instructions

    device = hardware.prepared()
    data.refuse_other_settings("data")
    pool = records.source()
    rows, embedder = data.spec(data.data), records.embedder(encoder, device)
    with console.Meter(quiet=output.quiet) as meter:
        about = make_instructions(
            rows, out, template=records.template, embedder=embedder, pool=pool, seed=seed,
            data_dir=data.data_dir,
            progress=lambda done, all_: meter.show_timed(
                "embedding", done / max(1, all_), f"{done} of {all_} texts"
            ),
        )  # fmt: skip
    if not output.quiet:
        for note in about.notes:
            console.info(f"Note: {note}")
        console.info(f"Instructions: {out}")
    _print(about, as_json=output.json)


def _print(about: InstructionsInfo, *, as_json: bool) -> None:
    """Records by language and split."""
    if as_json:
        console.print_json(about.model_dump(mode="json"))
        return
    splits = list(dict.fromkeys(name for counts in about.groups.values() for name in counts))
    lines = [
        [language or about.data, *(str(counts.get(name, 0)) for name in splits)]
        for language, counts in about.groups.items()
    ]
    print_table(["language" if len(lines) > 1 else "data", *splits], lines)


app.command()(llm_classify.classify)
app.command()(llm_finetune.finetune)


@app.command()
@with_groups
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of valence llm finetune.")],
    out: Annotated[Path, typer.Option(help="New folder for the model.")],
    hardware: HardwareOptions,
    quiet: Quiet = False,
) -> None:
    """Merge base model and adapter into one checkpoint, and check its probabilities."""
    from valence.llm.merge import merge as merge_adapter

    checked = merge_adapter(adapter, out, device=hardware.prepared())
    for line in [] if quiet else checked.lines():
        console.info(line)
    typer.echo(str(out))
