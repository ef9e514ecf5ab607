"""``valence llm finetune``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valence.cli import console
from valence.cli.options import (
    Encoder,
    OldName,
    OptionGroup,
    OutputOptions,
    TextOptions,
    TrainingHardware,
    check_device,
    with_groups,
)
from valence.cli.tables import print_table
from valence.distributed import process_group
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.data.examples import Examples
    from valence.llm.align import Round
    from valence.llm.finetune_spec import FineTuneResult, FinetuneSpec
    from valence.llm.pseudo_labels import AlignSpec
    from valence.llm.sft_data import SFTData

SHOWN = ("macro_f1", "accuracy", "weighted_f1")
Report = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions(OptionGroup):
    """What is fine-tuned, and how."""

    model: Annotated[str | None, typer.Option(help="Hub name or folder of a causal model.")] = None
    config: Annotated[
        Path | None, typer.Option(help="Settings in YAML; see configs/finetune/.")
    ] = None
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Set a setting: epochs=3. Repeatable.")
    ] = None

    def spec(self, hardware: TrainingHardware) -> FinetuneSpec:
        """The settings of the file, changed by options.

        Raises:
            SpecError: if no model is named or a setting does not fit.
        """
        from valence.config.spec import build, parse_yaml
        from valence.config.yaml_text import read_settings_file
        from valence.llm.finetune_spec import FinetuneSpec

        values: dict[str, Any] = {}
        if self.config is not None:
            try:
                text = read_settings_file(self.config)
            except (OSError, UnicodeDecodeError) as error:
                raise SpecError(f"Config {self.config} cannot be read: {error}") from None
            values = parse_yaml(text, where=str(self.config)) or {}
        for text in self.set_ or []:
            name, sign, value = text.partition("=")
            if not sign:
                raise SpecError(f"Setting {text!r} has no value; write it as name=value")
            values[name.strip()] = parse_yaml(value, where=f"value {value!r}")
        named = {
            "model": self.model, "device": hardware.device, "precision": hardware.precision,
        }  # fmt: skip
        values |= {name: value for name, value in named.items() if value is not None}
        if not values.get("model"):
            raise SpecError("No language model given; use --model NAME")
        return build(FinetuneSpec, values)


@dataclass(frozen=True, kw_only=True)
class AlignmentOptions(OptionGroup):
    """Further rounds on the model's own answers."""

    unlabeled: Annotated[
        str | None,
        typer.Option(help="Unlabeled texts for self-training (self-alignment)."),
        OldName("--unlabelled"),
    ] = None
    rounds: Annotated[int, typer.Option(help="Maximum rounds of self-alignment.")] = 3
    threshold: Annotated[
        float | None,
        typer.Option(help="Minimum probability of a pseudo-label; default: chosen per language."),
    ] = None
    sets: Annotated[
        int | None,
        typer.Option(help="Sets of demonstrations that must agree; default: chosen per language."),
    ] = None
    accuracy: Annotated[
        float, typer.Option(help="Accuracy that pseudo-labels must reach on validation rows.")
    ] = 0.8
    pool: Annotated[
        str, typer.Option(help="Take demonstrations from the text's own language, or from all.")
    ] = "language"

    def spec(self) -> AlignSpec:
        """The settings of self-alignment.

        Raises:
            SpecError: if a value does not fit.
        """
        from valence.config.spec import build
        from valence.llm.pseudo_labels import AlignSpec

        names = ("rounds", "threshold", "sets", "accuracy", "pool")
        return build(AlignSpec, {name: getattr(self, name) for name in names})


@with_groups
def finetune(
    instructions: Annotated[Path, typer.Argument(help="Folder of valence llm instructions.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    how: FineTuneOptions,
    alignment: AlignmentOptions,
    texts: TextOptions,
    hardware: TrainingHardware,
    output: OutputOptions,
    encoder: Encoder = None,
) -> None:
    """Fine-tune a language model with LoRA on instructions.

    Trains on the answers only and keeps the epoch with the best validation macro-F1. With a GPU and
    bitsandbytes, the base model is loaded in 4 bits. Run the same command again to resume.
    """
    from valence.llm.finetune import finetune as train
    from valence.llm.sft_data import read_sft_data
    from valence.reports.curves import write_curves

    hardware.prepared()
    if alignment.unlabeled is None and texts.settings():
        raise SpecError("--text-column and similar options need --unlabeled")
    spec = how.spec(hardware)
    check_device(spec.device)
    sft_data = read_sft_data(instructions, spec)
    if not output.quiet:
        console.info(
            f"{len(sft_data.train)} training and {len(sft_data.validation)} validation records"
        )
    with console.Meter(quiet=output.quiet) as meter:

        def report(fraction: float, words: str) -> None:
            meter.show_timed("fine-tuning", fraction, words)

        if alignment.unlabeled is None:
            result = train(spec, sft_data, out, progress=report)
        else:
            rows = texts.spec(alignment.unlabeled)
            result, rounds = _align(spec, alignment, sft_data, rows, out, encoder, report)
            _print_rounds(rounds if not output.quiet else [])
    process_group.run_on_main_process(lambda: write_curves(out))
    if not output.quiet:
        for note in result.notes:
            console.info(f"Note: {note}")
        console.info(
            f"Adapter: {out}; merge it into one model: valence llm merge {out} --out MODEL"
        )
    _print_validation(result, as_json=output.json)


def _align(
    spec: FinetuneSpec, alignment: AlignmentOptions, sft_data: SFTData, rows: DataSpec, out: Path,
    encoder: str | None, report: Report,
) -> tuple[FineTuneResult, list[Round]]:  # fmt: skip
    from valence.config.sections import EncoderSpec
    from valence.llm.align import LANGUAGE, self_align
    from valence.llm.retrieval import Embedder

    named = EncoderSpec(name=encoder) if encoder else EncoderSpec()
    texts = _texts(rows)
    if texts.groups is None and len({e.language for e in sft_data.train}) > 1:
        console.info(
            f"Note: {rows.name} has no column {LANGUAGE!r}, so demonstrations of any language are "
            "used, with the limits of all"
        )
    return self_align(
        spec, alignment.spec(), sft_data, texts, out,
        embedder=Embedder(named, device=spec.device), progress=report,
    )  # fmt: skip


def _texts(rows: DataSpec) -> Examples:
    """The texts of a source with their languages, if it names some; blank ones are left out."""
    import numpy as np

    from valence.data.examples import Examples
    from valence.data.groups import group_column, group_values
    from valence.data.locate import locate
    from valence.data.tables import TEXT_COLUMNS, find_column
    from valence.llm.records import folder_name

    texts: list[str] = []
    languages: list[str] = []
    for part in locate(rows)[0].values():
        table = part.read()
        columns = [str(name) for name in table.columns]
        column = find_column(columns, rows.text_column, TEXT_COLUMNS, what="text", where=rows.name)
        table = table[table[column].notna()]
        table = table[table[column].astype(str).str.strip() != ""]
        texts += table[column].astype(str).tolist()
        group = group_column(rows, columns, rows.name)
        if group:
            languages += [folder_name(name) for name in group_values(table[group])]
    known = len(languages) == len(texts)
    return Examples(texts, groups=np.array(languages, dtype=object) if known else None)


def _print_rounds(rounds: list[Round]) -> None:
    for one in rounds:
        accepted = ", ".join(f"{n} {name}" for name, n in one.selected.items()) or "labeled texts"
        ending = "" if one.improved else ", not kept"
        console.info(
            f"Round {one.number}: {accepted}; validation macro-F1 {one.macro_f1:.3f}{ending}"
        )
        for name, limits in one.limits.items():
            if limits.none_taken:
                reached = "no pseudo-labels used: they are too often wrong on validation rows"
            else:
                reached = f"{limits.sets} sets, probability ≥ {limits.threshold:.2f}"
            console.info(f"  {name or 'all languages'}: {reached}")


def _print_validation(result: FineTuneResult, *, as_json: bool) -> None:
    """Scores of all validation records, and of every language where there are several."""
    if as_json:
        languages = result.validation_by_language
        console.print_json({**result.validation, **({"languages": languages} if languages else {})})
        return
    names = [name for name in SHOWN if name in result.validation]
    columns = {"all": result.validation, **result.validation_by_language}
    if len(columns) == 1:
        columns = {"value": result.validation}
    rows = [[name, *(console.number(s[name]) for s in columns.values())] for name in names]
    print_table(["validation", *columns], rows)
