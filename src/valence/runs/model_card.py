"""The model card: what a model is, what it was tested on, and where not to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from valence.evaluation.classification import METRICS
from valence.methods.registry import METHODS
from valence.models.built_in import encoder_origin
from valence.models.config_file import read_config
from valence.runs.store import RunResult

FEW_ROWS = 20  # training rows below which a class's score says little
WEAK_F1 = 0.5


def write_card(folder: Path, result: RunResult) -> None:
    """Write ``README.md`` into a model folder, with the metadata that the hub reads.

    It has counts and scores, and no text of the data.

    Args:
        folder: The model folder.
        result: The run that made the model.
    """
    in_transformers = read_config(folder).holds_encoder
    card = model_card(result, in_transformers=in_transformers)
    (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(result: RunResult, *, in_transformers: bool = False) -> str:
    """The card in Markdown.

    Args:
        result: The run that made the model.
        in_transformers: Whether transformers loads the folder too.
    """
    method = METHODS.get(result.spec.method)
    title = method.title if method is not None else result.spec.method
    intensity = not result.classes
    task = "the intensity of sentiment" if intensity else f"one of {len(result.classes)} labels"
    parts = [
        _metadata(result, in_transformers),
        f"# {result.spec.method} on {_cell(result.dataset)}",
        f"Predicts {task} of a text. Method: "
        f"{_cell(title)}." + _source(method.paper if method else ""),
        "## How it was made", _made(result),
        "## Test scores", _scores(result),
    ]  # fmt: skip
    if not intensity:
        parts += ["## By label", _labels(result)]
    parts += ["## Limits", _limits(result), "## How to use it", _use(in_transformers)]
    return "\n\n".join(parts) + "\n"


def _metadata(result: RunResult, in_transformers: bool) -> str:
    data: dict[str, Any] = {
        "library_name": "transformers" if in_transformers else "valence",
        "pipeline_tag": "text-classification",
        "tags": ["valence", "sentiment-analysis", result.spec.method],
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True).strip()}\n---"


def _source(paper: str) -> str:
    return f" Source: {_cell(paper)}." if paper else ""


def _made(result: RunResult) -> str:
    spec = result.spec
    rows = ", ".join(f"{count:,} {name}" for name, count in result.sizes.items())
    lines = [f"Rows: {rows}."]
    encoder = spec.get("encoder.name")
    if encoder is not None:
        lines.append(
            f"Encoder: {_cell(Path(encoder).name)}, {spec.get('encoder.adaptation', 'frozen')}, "
            f"up to {spec.get('encoder.max_length')} tokens; {result.trainable_parameters:,} "
            "trained parameters."
        )
        origin = encoder_origin(encoder)
        if origin is not None:
            lines.append(f"Weights of the encoder: {origin}.")
    lines.append(
        f"Weights and hyperparameters were selected on validation rows; seed {spec.seed}; trained "
        f"in {result.train_seconds:,.0f} s."
    )
    versions = result.provenance.get("versions", {})
    if versions:
        lines.append("Versions: " + ", ".join(f"{n} {v}" for n, v in versions.items() if v) + ".")
    return "\n".join(f"- {line}" for line in lines)


def _scores(result: RunResult) -> str:
    rows = ["| score | validation | test |", "|---|---:|---:|"]
    for name, value in result.test.items():
        if not name.startswith("f1/"):
            shown = METRICS[name].title if name in METRICS else name
            rows.append(
                f"| {_cell(shown)} | {_number(result.validation.get(name))} | {_number(value)} |"
            )
    return "\n".join(rows)


def _labels(result: RunResult) -> str:
    rows = ["| label | training rows | test F1 | |", "|---|---:|---:|---|"]
    for i, (name, count) in enumerate(zip(result.classes, result.train_counts, strict=True)):
        tail = "tail" if i in result.tail else ""
        score = _number(result.test.get(f"f1/{name}"))
        rows.append(f"| {_cell(name)} | {count:,} | {score} | {tail} |")
    return "\n".join(rows)


def _limits(result: RunResult) -> str:
    lines = [
        "It predicts one of the labels above for every text, even if none fits."
        if result.classes else "It predicts a number for every text about any topic.",
        "The scores hold for texts like the test rows. Test again for other topics, languages and "
        "times.",
    ]  # fmt: skip
    if result.synthetic:
        lines.append("The corpus is synthetic: the scores say nothing about real texts.")
    few = [
        n for n, count in zip(result.classes, result.train_counts, strict=False) if count < FEW_ROWS
    ]
    if few:
        names = ", ".join(_cell(name) for name in few)
        lines.append(f"Fewer than {FEW_ROWS} training rows, so unreliable: {names}.")
    scores = {name: result.test.get(f"f1/{name}") for name in result.classes}
    weak = [_cell(name) for name, f1 in scores.items() if f1 is not None and f1 < WEAK_F1]
    if weak:
        names = ", ".join(weak)
        lines.append(f"Test F1 below {WEAK_F1}, so often wrong: {names}.")
    absent = [_cell(name) for name, f1 in scores.items() if f1 is None]
    if absent:
        lines.append(f"Not in the test rows, so not measured: {', '.join(absent)}.")
    lines.append(
        "The probabilities are not calibrated; run `valence calibrate` before you set a threshold."
    )
    return "\n".join(f"- {line}" for line in lines)


def _use(in_transformers: bool) -> str:
    ours = (
        "```python\nfrom valence import Predictor\n\n"
        'model = Predictor.from_pretrained("FOLDER_OR_HUB_ID")\n'
        'print(model.table(["Not bad at all"]))\n```\n\n'
        "Or `valence predict FOLDER new.csv --out scored.csv`, or `valence serve FOLDER`."
    )
    if not in_transformers:
        return ours
    return (
        f"{ours} Without Valence, with the same probabilities:\n\n"
        "```python\nfrom transformers import pipeline\n\n"
        'classify = pipeline("text-classification", "FOLDER_OR_HUB_ID")\n'
        'print(classify("Not bad at all", top_k=None, truncation=True))\n```'
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """A name as plain text: no cell ends in it and no markup starts."""
    line = " ".join(text.split())
    for mark in "\\`*_[]<>|":
        line = line.replace(mark, f"\\{mark}")
    return line
