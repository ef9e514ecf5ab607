"""``valence export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from valence.cli import console
from valence.cli.evaluate import print_notes
from valence.cli.options import OtherDataOptions, OutputOptions, SplitName, with_groups
from valence.cli.tables import print_table

TITLES = {"macro_f1": "macro-F1", "macro_recall": "macro recall", "worst_f1": "worst F1"}


@with_groups
def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the exported model.")],
    data: OtherDataOptions,
    output: OutputOptions,
    split: SplitName = "validation",
    format_: Annotated[
        Literal["onnx", "openvino", "transformers", "sentence-transformers"],
        typer.Option(
            "--format",
            help="onnx (also Optimum, text-embeddings-inference, transformers.js), openvino "
            "(fastest in bulk), transformers or sentence-transformers.",
        ),
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize weights to 8 bits: smaller and faster.")
    ] = False,
    max_drop: Annotated[
        float, typer.Option(help="Maximum loss in points of macro-F1 and of the worst class's F1.")
    ] = 0.5,
) -> None:
    """Export a model for other tools, and check that it predicts the same.

    Checks on the rows of --data, or on the validation rows of the training. Predict and evaluate
    accept the exported folder, too.
    """
    from valence.inference.export.export import CHECKED_ROWS, export_model, rows_of
    from valence.inference.export.job import ExportOptions
    from valence.models.config_file import read_config

    config = read_config(model)
    spec = data.other_rows(target=config.task.target)
    dataset, checked = rows_of(config, spec, split=split, data_dir=data.data_dir)
    if not output.quiet:
        print_notes(checked)
        drawn = "" if len(checked.rows) <= CHECKED_ROWS else f"{CHECKED_ROWS} of "
        console.info(f"{model} → {format_}, checked on {drawn}{checked}")
    checks = export_model(model, out, dataset, options=ExportOptions(format_, int8, max_drop))
    _print(checks, out, output)


def _print(checks: dict[str, Any], out: Path, output: OutputOptions) -> None:
    if output.json:
        console.print_json(checks)
        return
    if not output.quiet:
        for note in checks.get("notes", ()):
            console.info(f"Note: {note}")
    lines = [[title, *(f"{value:.4f}" for value in checks[n])] for n, title in TITLES.items()]
    print_table([f"{checks['rows']} rows", "before", "after"], lines)
    if not output.quiet:
        console.info(
            f"{checks['flips']:.2%} of the labels changed; probabilities differ by "
            f"{checks['largest_difference']:.1e} at most. Model: {out}"
        )
