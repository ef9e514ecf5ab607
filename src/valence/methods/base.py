"""The base class of methods: :class:`Method`, which turns training rows into a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from valence.config.callbacks import EvalCallback, ProgressCallback
from valence.config.ranges import Range
from valence.config.spec import MethodConfig, RunSpec
from valence.errors import ModelError, SpecError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from valence.data.dataset import Split
    from valence.evaluation.task import Task
    from valence.models.base import Model

ConfigT = TypeVar("ConfigT", bound=MethodConfig)
MAX_SCORING, QUICK_SCORING = 0.95, 0.1  # fractions of a run's progress


class Sizes(NamedTuple):
    """Rows per split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Capabilities:
    """What a family of methods can do.

    Attributes:
        targets: Values of ``data.target`` that it can be trained for.
        inputs: What it reads of a row.
        several_processes: Whether several processes can train it together.
        keeps_model: Whether its models can be saved.
        streams_epochs: Whether it is trained in epochs that are evaluated one by one, so that a
            tuner can stop a trial early and an interrupted training is resumed.
        continues: Whether a saved model can be trained further.
        chooses_encoder: Whether it chooses the encoder itself where ``encoder.name`` is ``auto``.
        weighs_rows: Whether training rows can have weights.
        averages_runs: Whether its model is made of the models of other runs.
    """

    targets: tuple[str, ...] = ("classes",)
    inputs: tuple[str, ...] = ("text",)
    several_processes: bool = False
    keeps_model: bool = True
    streams_epochs: bool = False
    continues: bool = False
    chooses_encoder: bool = False
    weighs_rows: bool = False
    averages_runs: bool = False


@dataclass(frozen=True)
class FitContext:
    """What a fit receives besides its rows.

    Attributes:
        spec: What is fitted; ``spec.config`` is of the method's own class.
        task: What is predicted, with the sizes of the training classes.
        provenance: What the model records of its training: the spec as plain values, without its
            data where the rows were in-memory objects.
        checkpoint: Folder of the checkpoints from which an interrupted training is resumed.
        progress: Called with the fraction done and a message.
        on_evaluate: Called with the validation score of every evaluation.
        start: The model folder that a spec with ``start`` continues.
        group: Name of the rows' group column; empty without one.
        fit_base: Fits another spec on the same rows, for methods that build on one; calls the
            progress it is given.
        new_spec: Makes the spec of another method on the same rows, from its name and dotted
            settings.
        row_weights: (N,) weights of the training rows, beside those of their classes; None where
            all count alike.
    """

    spec: RunSpec
    task: Task
    provenance: Mapping[str, Any]
    checkpoint: Path | None = None
    progress: ProgressCallback | None = None
    on_evaluate: EvalCallback | None = None
    start: Path | None = None
    group: str = ""
    fit_base: Callable[[RunSpec, ProgressCallback | None], FitResult] | None = None
    new_spec: Callable[[str, Mapping[str, Any]], RunSpec] | None = None
    row_weights: np.ndarray | None = None

    def report_progress(self, done: float, message: str) -> None:
        """Call ``progress``, if there is one."""
        if self.progress is not None:
            self.progress(done, message)


@dataclass(frozen=True)
class OwnBest:
    """The weights of some metrics' own best validation epoch.

    Attributes:
        step: Optimizer step of that epoch.
        metrics: The metrics that were best there.
        weights: Gives the model these weights while a block runs.
    """

    step: int
    metrics: tuple[str, ...]
    weights: Callable[[], AbstractContextManager[Model]]


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Attributes:
        model: The model.
        history: Training records by step.
        notes: Lines for the user.
        own_best: Weights of each metric's own best epoch, where a method keeps them.
        scores_validation: Whether validation rows are to be scored for a run.
        train_seconds: Time of the training a method builds on; None where the fit itself is timed.
        origin: The run the fit was taken from; empty for a new fit.
        out_of_fold: (N, C) logits of the training rows by models fitted without them, where a
            method has them.
        held_out: (M, C) logits of the validation rows by models fitted without them, where parts
            of the model may have been fitted with them.
        tables: Further tables of the run folder, by file name.
    """

    model: Model
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    own_best: tuple[OwnBest, ...] = ()
    scores_validation: bool = True
    train_seconds: float | None = None
    origin: str = ""
    out_of_fold: np.ndarray | None = None
    held_out: np.ndarray | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


class FitStopped(KeyboardInterrupt):
    """An interrupt of a fit that has a result so far; whoever does not catch it is interrupted.

    Args:
        partial: The result of what was fitted before.
    """

    def __init__(self, partial: FitResult) -> None:
        super().__init__()
        self.partial = partial


@dataclass(frozen=True)
class Method(ABC, Generic[ConfigT]):
    """One entry of the table of methods.

    Attributes:
        title: One line for tables and help.
        settings: Dotted settings that define the method.
        paper: Where it comes from.
        space: The search space, by dotted setting; empty for the family's own ranges.
        name: Its name in the table, which the table sets.
        Config: The settings it reads.
        capabilities: What its family can do.
        family: A word for the family, for tables.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""
    space: Mapping[str, Range] = field(default_factory=dict)
    name: str = ""

    Config: ClassVar[type[MethodConfig]]
    capabilities: ClassVar[Capabilities] = Capabilities()
    family: ClassVar[str]

    @abstractmethod
    def fit(self, train: Split, validation: Split, context: FitContext) -> FitResult:
        """Turn training rows into a model; everything is chosen on the validation rows.

        Raises:
            SpecError, DataError, ModelError, RunError: if settings, rows or encoder cannot be
                used, or the training breaks down.
        """

    def config(self, spec: RunSpec) -> ConfigT:
        """The config of a spec as this method's class.

        Raises:
            SpecError: if the spec is of another method.
        """
        if not isinstance(spec.config, self.Config):
            raise SpecError(f"Method {self.name!r} cannot be fitted with a spec of {spec.method!r}")
        return spec.config  # type: ignore[return-value]

    def defaults(self) -> Mapping[str, Any]:
        """Dotted settings that define the method; they override those of a comparison."""
        return self.settings

    def complete(self, spec: RunSpec, given: Mapping[str, Any]) -> RunSpec:
        """The spec with settings that follow from others.

        Args:
            spec: The spec with all that was given.
            given: Dotted settings that were given, by method, comparison or user.
        """
        return spec

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the method reads of a row: ``text``, ``audio``, ``vision``."""
        return self.capabilities.inputs

    def encoder_name(self, config: ConfigT) -> str | None:
        """The encoder of the model; None where it has none."""
        name: str | None = config.get("encoder.name")
        return name

    def base_spec(self, spec: RunSpec) -> RunSpec:
        """The spec of the training a spec builds on: itself for most."""
        return spec

    def reads(self, config: ConfigT) -> frozenset[str]:
        """Dotted settings of the config that change the result."""
        return frozenset(type(config).paths())

    def search_space(self, config: ConfigT) -> dict[str, Range]:
        """The search space of a tuner, by dotted setting; empty where nothing is tuned."""
        return dict(self.space)

    def cost(self, config: ConfigT, sizes: Sizes) -> float:
        """Expected work of a run, in texts scored once by the encoder; estimates the time left."""
        return 0.0

    def scoring_part(self, config: ConfigT, sizes: Sizes) -> float:
        """Fraction of a run's progress that is scoring validation and test rows, after the fit."""
        cost = self.cost(config, sizes)
        return min(MAX_SCORING, (sizes.validation + sizes.test) / cost) if cost else QUICK_SCORING

    def content(self, config: ConfigT) -> tuple[str, ...]:
        """Hashes of the files that a result depends on besides settings and rows.

        Raises:
            ModelError, SpecError: if they cannot be found.
        """
        return ()

    def device(self, config: ConfigT) -> str:
        """The device setting: where the method is trained and scored."""
        device: str = config.get("train.device", "cpu")
        return device

    def precision(self, config: ConfigT) -> str:
        """The number format in effect: ``fp32`` or ``bf16``."""
        return "fp32"

    def check_continues(self, folder: Path) -> None:
        """Refuse to train a saved model further where the family cannot.

        Raises:
            ModelError: saying what to do.
        """
        if not self.capabilities.continues:
            raise ModelError(
                f"{folder} is a {self.name} model, which cannot be trained further; train a new "
                "one on all rows"
            )
