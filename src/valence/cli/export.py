"""``valence export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from valence.cli import console
from valence.cli.compare import DataDir, Json, Quiet


def export(
    model: Annotated[Path, typer.Argument(help="A model folder that valence train wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the exported model.")],
    format_: Annotated[
        Literal["onnx", "openvino"],
        typer.Option("--format", help="What runs it: ONNX Runtime, or OpenVINO for bulk."),
    ] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights: smaller, faster.")] = False,
    max_drop: Annotated[
        float, typer.Option(help="Points of macro-F1 and of the worst class's F1 it may lose.")
    ] = 0.5,
    data: Annotated[
        str | None, typer.Option(help="Rows to check on; those of the training when none.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model that runs without PyTorch, after checking it on validation rows.

    The folder is a model folder: predict and evaluate take it as it is.
    """
    from valence.inference.export.export import ExportOptions, export_model, rows_of

    rows = rows_of(model, data=data, data_dir=data_dir)
    if not quiet:
        console.say(f"{model} → {format_}, checked on {len(rows.validation)} validation rows")
    options = ExportOptions(format_, int8, max_drop)
    checks = export_model(model, out, rows, options=options)
    if json:
        console.print_json(checks)
        return
    titles = {"macro_f1": "macro-F1", "macro_recall": "macro recall", "worst_f1": "worst F1"}
    lines = [[title, *(f"{value:.4f}" for value in checks[n])] for n, title in titles.items()]
    console.print_table([f"{checks['rows']} rows", "before", "after"], lines)
    if not quiet:
        console.say(
            f"{checks['flips']:.2%} of the labels changed; probabilities differ by "
            f"{checks['largest_difference']:.1e} at most. Model: {out}"
        )
