"""What a comparison takes before it starts: runs, time, memory, models and rows.

The time is an order of magnitude. It counts the multiplications of every pass through an encoder or
language model and divides them by what a usual machine does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from valence.comparison.grid import plan
from valence.comparison.papers import PaperTable, TableRun
from valence.config.data import DataSpec
from valence.config.spec import RunSpec
from valence.data.catalog import DATASETS
from valence.data.features.archive import FEATURE_CARDS
from valence.methods.base import Sizes
from valence.methods.prompting import ANSWER_WORK
from valence.methods.registry import find_method
from valence.models.cpu import usable_cores

GIB = 2**30


class Shape(NamedTuple):
    """Of a transformer: layers, width, and all its parameters in millions."""

    layers: int
    width: int
    millions: float


BASE, LLAMA_8B = Shape(12, 768, 110), Shape(32, 4096, 8030)
SHAPES: Mapping[str, Shape] = {
    "all-MiniLM-L6-v2": Shape(6, 384, 22.7),
    "multilingual-e5-small": Shape(12, 384, 118),
    "bert-base-uncased": BASE,
    "bert-base-chinese": BASE._replace(millions=102),
    "hfl/chinese-macbert-base": BASE._replace(millions=102),
    "roberta-base": BASE._replace(millions=125),
    "bert-base-multilingual-cased": BASE._replace(millions=178),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(24, 896, 494),
    "Qwen/Qwen2.5-7B-Instruct": Shape(28, 3584, 7616),
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "meta-llama/Meta-Llama-3-8B-Instruct": LLAMA_8B,
}
"""Shapes of the models of the published set-ups and of those that stand in for them."""

# The built-in encoder scores 161 tweets of 34 tokens a second on a core of ours, and trains 3,000
# texts a second on an H100 (docs/results-gpu.md); larger encoders use a GPU better than that.
ENCODER_OPERATIONS = {"cpu": 1.2e11, "cuda": 1e13}
"""A second, of a core and of a GPU."""
ANSWER_OPERATIONS = {"cpu": 1.5e10, "cuda": 5e13}
"""The same, of a language model that is asked one text after the other."""
LEAST_TOKENS = 24
"""What a shorter text costs as much as, since a batch has its own cost: of titles and questions we
measured two to three times what their 13 tokens would take."""
PROMPT_TOKENS = 60
"""Of a question beside its texts."""
ANSWER_ROOM = 2 * GIB
"""Bytes beside the weights of a language model that answers; the same again where it is trained."""
WEIGHT_BYTES = {"nf4": 0.52, "bf16": 2.0, "fp32": 4.0}
PROGRAM = 0.8 * GIB
"""Of the process itself: a linear probe takes 766 MiB."""
TRAINED_BYTES = 16
"""Of a weight that AdamW trains: itself, its gradient and two averages, in float32."""


@dataclass(frozen=True)
class TableResources:
    """What a table of a paper takes.

    Attributes:
        name: Of the table.
        runs: How many.
        gpu_hours, cpu_hours: On one large GPU, and on the cores of this machine; None where the
            rows or a model are not known.
        memory_gib: At most, for the largest run, where the longest texts fill the batch; None
            where a model is not known.
        models: Encoders and language models by name.
        rows: By corpus, where its rows are: ``here``, ``hub``, ``kaggle`` or ``missing``.
    """

    name: str
    runs: int
    gpu_hours: float | None
    cpu_hours: float | None
    memory_gib: float | None
    models: tuple[str, ...]
    rows: Mapping[str, str]


def table_resources(
    table: TableRun, settings: Mapping[str, Any] | None = None, *,
    data_dir: str | Path | None = None, device: str = "cuda",
) -> TableResources:  # fmt: skip
    """What a table takes; nothing is read but its settings.

    Args:
        table: The table.
        settings: Dotted settings from the command line.
        data_dir: Folder of corpora.
        device: Where it is to be run, for the memory: ``cuda`` computes in bf16.
    """
    specs = plan(table.comparison, settings)
    models = dict.fromkeys(name for spec in specs for name in model_names(spec))
    known = table.about.rows is not None and models.keys() <= SHAPES.keys()
    hours: dict[str, float | None] = {"cuda": None, "cpu": None}
    if known:
        hours = {
            place: sum(_seconds(spec, table.about, place) for spec in specs) / 3600
            for place in hours
        }
    memory = None
    if models.keys() <= SHAPES.keys():
        memory = (PROGRAM + max((_memory(spec, device) for spec in specs), default=0.0)) / GIB
    corpora = {spec.data.name: where_rows_are(spec.data, data_dir) for spec in specs}
    return TableResources(
        table.name, len(specs), hours["cuda"], hours["cpu"], memory, tuple(models), corpora
    )


def model_names(spec: RunSpec) -> list[str]:
    """The models that a run computes with, the one that takes most of the time first."""
    method = find_method(spec.method)
    if method.family != "prompting":
        encoder = method.encoder_name(spec.config)
        return [] if encoder is None else [encoder]
    names = [str(spec.get("llm.model"))]
    if spec.get("llm.shots") == "retrieved":
        names.append(str(spec.get("encoder.name")))
    return names


def sizes_of(data: DataSpec, table: PaperTable) -> Sizes:
    """Rows per split that a spec leaves of the published ones, as far as they are known."""
    train, validation, test = table.rows or (0, 0, 0)
    if data.train_counts is not None:
        train = sum(data.train_counts.values())
    elif data.imbalance_ratio is not None and data.head_count is not None:
        steps = max(1, table.classes - 1)
        shares = (data.imbalance_ratio ** (-i / steps) for i in range(table.classes))
        train = min(train, round(data.head_count * sum(shares)))
    train = min(train, data.train_total or data.sample or train)
    if data.validation_per_class is not None:
        validation = min(validation, data.validation_per_class * table.classes)
    if data.test_per_class is not None:
        test = min(test, data.test_per_class * table.classes)
    return Sizes(train, validation, test)


def where_rows_are(data: DataSpec, data_dir: str | Path | None) -> str:
    """Whether rows are ``here``, on the ``hub`` or on ``kaggle``, or ``missing``."""
    if data.name == "demo" or Path(data.name).exists():
        return "here"
    if data.name.startswith("kaggle:"):
        return "kaggle"
    root = data_dir or os.environ.get("VALENCE_DATA")
    names = (data.name, data.name.replace("-", "_")) if root is not None else ()
    places = [Path(str(root)) / name for name in names]
    if data.name in FEATURE_CARDS:  # their texts alone are not enough
        has_features = any(
            [*place.glob("*.pkl"), *place.glob("manifest.json"), *place.glob("*/manifest.json")]
            for place in places
        )
        return "here" if has_features else "missing"
    if any(place.exists() for place in places):
        return "here"
    card = DATASETS.get(data.name)
    on_hub = card.hub is not None if card is not None else "/" in data.name
    return "hub" if on_hub else "missing"


def _seconds(spec: RunSpec, table: PaperTable, place: str) -> float:
    method, names = find_method(spec.method), model_names(spec)
    if not names:
        return 0.0
    shape, cores = SHAPES[names[0]], usable_cores() if place == "cpu" else 1
    passes = method.cost(spec.config, sizes_of(spec.data, table))
    if method.family == "prompting":
        shots = 0 if spec.get("llm.shots") == "zero" else table.classes
        shots = spec.get("llm.shots_total") or shots if shots else 0
        tokens = PROMPT_TOKENS + table.tokens * (1 + shots)
        operations = 2e6 * shape.millions * tokens * passes / ANSWER_WORK
        return float(operations / (ANSWER_OPERATIONS[place] * cores))
    length = spec.get("encoder.max_length", table.tokens)
    tokens = max(LEAST_TOKENS, min(table.tokens, length))
    operations = 24.0 * shape.layers * shape.width**2 * tokens * passes
    return float(operations / (ENCODER_OPERATIONS[place] * cores))


def _memory(spec: RunSpec, device: str) -> float:
    """Bytes of a run at most."""
    method, names = find_method(spec.method), model_names(spec)
    if not names:
        return 0.0
    shape = SHAPES[names[0]]
    weights = 1e6 * shape.millions
    if method.family == "prompting":
        stored = "bf16" if device == "cuda" else "fp32"
        if spec.get("llm.quantization") == "nf4":
            stored = "nf4"
        elif spec.get("llm.precision") != "auto":
            stored = str(spec.get("llm.precision"))
        is_trained = spec.get("sft.epochs") is not None
        return weights * WEIGHT_BYTES[stored] + (1 + is_trained) * ANSWER_ROOM
    adaptation = spec.get("encoder.adaptation", "frozen")
    steps = _step_bytes(spec)
    if adaptation == "frozen":
        return 4 * weights + steps
    views = 1 if spec.get("view.name", "none") == "none" else 2
    tokens = int(spec.get("encoder.max_length"))
    rows = int(spec.get("train.batch_size")) * views
    activations = rows * shape.layers * _layer_bytes(tokens, shape.width)
    activations *= 1 if device == "cuda" else 2
    return weights * (TRAINED_BYTES if adaptation == "full" else 4) + activations + steps


def _layer_bytes(tokens: int, width: int) -> float:
    """Of a text in a layer, at 16 bits, with heads of 64: Korthikanti et al., arXiv 2205.05198."""
    return tokens * width * (34 + 5 * tokens / 64)


def _step_bytes(spec: RunSpec) -> float:
    """Of audio and vision in a batch of a fusion, in float32; 0 for other methods."""
    card = FEATURE_CARDS.get(spec.data.name)
    if card is None or spec.get("fusion.name") is None:
        return 0.0
    rows, width = int(spec.get("train.batch_size")), int(spec.get("fusion.dim"))
    return 2 * rows * sum(_layer_bytes(steps, width) for steps in card.steps[1:])
