"""Valence: sentiment models where the data is unfair.

The public names are loaded when they are first used, so that ``import valence`` and
``valence --help`` stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valence.comparison.grid import Comparison, Outcome
    from valence.config.callbacks import ProgressCallback
    from valence.config.data import DataSpec
    from valence.config.spec import RunSpec
    from valence.data.sources import load_dataset
    from valence.errors import ValenceError
    from valence.estimator import SentimentClassifier
    from valence.inference.fitted import Fitted
    from valence.inference.predictor import Predictor
    from valence.methods.registry import make_spec
    from valence.runs.runner import run
    from valence.runs.store import RunResult, RunStore

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "valence.comparison.grid",
    "DataSpec": "valence.config.data",
    "Fitted": "valence.inference.fitted",
    "Outcome": "valence.comparison.grid",
    "Predictor": "valence.inference.predictor",
    "RunResult": "valence.runs.store",
    "RunSpec": "valence.config.spec",
    "RunStore": "valence.runs.store",
    "SentimentClassifier": "valence.estimator",
    "ValenceError": "valence.errors",
    "load_dataset": "valence.data.sources",
    "make_spec": "valence.methods.registry",
    "run": "valence.runs.runner",
}

__all__ = [
    "Comparison",
    "DataSpec",
    "Fitted",
    "Outcome",
    "Predictor",
    "RunResult",
    "RunSpec",
    "RunStore",
    "SentimentClassifier",
    "ValenceError",
    "compare",
    "fit",
    "load_dataset",
    "load_model",
    "make_spec",
    "run",
    "train",
]


def fit(  # noqa: PLR0913 - the options of the command
    data: Any,
    text: str | None = None,
    label: str | None = None,
    *,
    budget: str | float | None = "5m",
    encoder: str = "auto",
    seed: int = 45,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    track: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Fitted:
    """Fit the best model for a file, folder, card, hub id or DataFrame, as ``valence fit`` does.

    Several models are tried; the choice is made out of fold and on validation rows, and the test
    rows are scored once. The same call goes on where an earlier one was stopped. An interrupt
    after the first fitted model ends the search, and the best so far is returned.

    Args:
        data: What ``load_dataset`` takes.
        text: The column of texts; guessed when None.
        label: The column of labels; guessed when None.
        budget: Time for models that train the encoder: ``"90s"``, ``"5m"``, ``"2h"``, a number of
            seconds, or None for no limit.
        encoder: An encoder, or ``auto``: the built-in ones that can read the texts.
        seed: Random seed.
        runs: Folder for finished runs.
        data_dir: Folder of corpora.
        track: A tool to log to: tensorboard, mlflow, wandb or trackio.
        settings: Dotted settings of ``auto``, for example ``{"portfolio.epochs": 3}``.
        progress: Called with the fraction done and a short message.

    Raises:
        ValenceError: if the data, the settings or the fit fail.
    """
    from valence.inference.fitted import budget_settings, fit_rows
    from valence.runs.store import RunStore

    return fit_rows(
        data, columns={"text_column": text, "label_column": label},
        settings={**budget_settings(budget, encoder), **(settings or {})}, seed=seed,
        store=RunStore(runs), data_dir=data_dir, track=track, progress=progress,
    )  # fmt: skip


def load_model(folder: str | Path) -> Predictor:
    """The model of a folder that ``valence fit``, ``train`` or ``export`` wrote, ready for texts.

    Args:
        folder: The model folder.

    Raises:
        ModelError: if it is missing or broken.
    """
    from valence.inference.predictor import Predictor

    return Predictor(folder)


def train(
    data: Any,
    method: str = "hy-mora",
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 45,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    track: str | None = None,
) -> RunResult:
    """Train a method on a file, folder, card, hub id or DataFrame; the model is in the run folder.

    Columns are found as ``load_dataset`` finds them, or named by the settings ``data.text_column``
    and ``data.label_column``.

    Args:
        data: What ``load_dataset`` takes.
        method: A name of ``METHODS``.
        settings: Dotted settings, for example ``{"train.epochs": 3}``.
        seed: Seed of everything random.
        runs: Folder for finished runs.
        data_dir: Folder of corpora.
        track: A tool to log to: tensorboard, mlflow, wandb or trackio.

    Raises:
        ValenceError: if the data, the settings or the training fail.
    """
    from valence.config.data import DataSpec
    from valence.data.frames import frames_as_names
    from valence.methods.registry import make_spec
    from valence.runs.runner import run
    from valence.runs.store import RunStore

    with frames_as_names([data]) as (name,):
        spec = make_spec(method, DataSpec(name=name), seed=seed, settings=settings)
        return run(spec, store=RunStore(runs), data_dir=data_dir, keep_model=True, track=track)


def compare(
    data: Any,
    methods: Sequence[str],
    *,
    seeds: Sequence[int] = (45, 123, 789),
    settings: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    track: str | None = None,
) -> Outcome:
    """Run every method on every data set with every seed; only what is missing is run.

    Args:
        data: What ``load_dataset`` takes, or a list of such.
        methods: Names of ``METHODS``.
        seeds: Seeds.
        settings: Dotted settings of all methods.
        runs: Folder for finished runs.
        data_dir: Folder of corpora.
        track: A tool to log to: tensorboard, mlflow, wandb or trackio.

    Raises:
        ValenceError: if a name or a setting is wrong; cells that fail are in the outcome.
    """
    from valence.comparison.grid import Comparison, execute, plan
    from valence.config.data import DataSpec
    from valence.data.frames import frames_as_names
    from valence.runs.store import RunStore

    with frames_as_names(data if isinstance(data, list | tuple) else [data]) as names:
        comparison = Comparison(
            data=tuple(DataSpec(name=name) for name in names),
            methods=tuple(methods),
            seeds=tuple(seeds),
        )
        specs = plan(comparison, settings)
        return execute(specs, store=RunStore(runs), data_dir=data_dir, track=track)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'valence' has no attribute {name!r}")
