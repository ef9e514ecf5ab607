"""The tracking tools: one class each, which logs one run."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

PROJECT = "valence"


class Tracker(ABC):
    """One run in a tracking tool.

    Args:
        folder: Where the tool keeps what it writes on this machine.
        name: Name of the run.

    Attributes:
        module: What must be there for it.
        install: How it is installed.
    """

    module: ClassVar[str]
    install: ClassVar[str]

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder.absolute()
        self.name = name

    @property
    def place(self) -> str:
        """Where the runs can be seen."""
        return str(self.folder)

    @abstractmethod
    def start(self) -> None:
        """Begin the run, or take it up again after the Trainer."""

    @abstractmethod
    def log_params(self, params: Mapping[str, str]) -> None:
        """Log settings, once."""

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers: of a step, by the Trainer's names, or final ones."""

    @abstractmethod
    def log_file(self, path: Path) -> None:
        """Attach a file."""

    @abstractmethod
    def finish(self, *, failed: bool) -> None:
        """End the run."""


class TensorBoard(Tracker):
    """Event files, a folder per run."""

    module = "tensorboard"
    install = "pip install tensorboard"
    variable: ClassVar[str] = "TENSORBOARD_LOGGING_DIR"

    def start(self) -> None:
        """As :class:`Tracker`; the Trainer's callback learns the folder by its variable."""
        from torch.utils.tensorboard import SummaryWriter

        log_folder = str(self.folder / self.name)
        self.before = os.environ.get(self.variable)
        os.environ[self.variable] = log_folder
        self.writer = SummaryWriter(log_dir=log_folder)

    def log_params(self, params: Mapping[str, str]) -> None:
        """As :class:`Tracker`: a table among the texts."""
        rows = "".join(f"| {name} | {value} |\n" for name, value in params.items())
        self.writer.add_text("parameters", f"| setting | value |\n|---|---|\n{rows}")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As :class:`Tracker`."""
        named = metrics if step is None else _by_split(metrics)
        for name, value in named.items():
            self.writer.add_scalar(name, value, step or 0)

    def log_file(self, path: Path) -> None:
        """As :class:`Tracker`: the text of a table; of a page or picture, where it is."""
        is_text = path.suffix in (".json", ".yaml", ".csv")
        fenced = f"```\n{path.read_text(encoding='utf-8')}\n```" if is_text else str(path)
        self.writer.add_text(path.name, fenced)

    def finish(self, *, failed: bool) -> None:
        """As :class:`Tracker`."""
        self.writer.close()
        if self.before is None:
            os.environ.pop(self.variable, None)
        else:
            os.environ[self.variable] = self.before


class MLflow(Tracker):
    """An SQLite file here, or what ``MLFLOW_TRACKING_URI`` names."""

    module = "mlflow"
    install = "pip install mlflow-skinny"
    variable: ClassVar[str] = "MLFLOW_TRACKING_URI"

    @property
    def place(self) -> str:
        """The tracking URI."""
        named = os.environ.get(self.variable)
        return named or f"sqlite:///{self.folder.as_posix()}/mlflow.db"

    def start(self) -> None:
        """As :class:`Tracker`."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        import mlflow

        here = self.variable not in os.environ
        # Several workers write to the one file.
        mlflow.set_tracking_uri(self.place + ("?timeout=60" if here else ""))
        if here:
            os.environ.pop(self.variable, None)  # it is set by the call, and is the user's
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if mlflow.get_experiment_by_name(project) is None:
            files = (self.folder / "files").as_uri() if here else None
            mlflow.create_experiment(project, artifact_location=files)
        mlflow.set_experiment(project)
        inside = mlflow.active_run() is not None
        mlflow.start_run(run_name=self.name, nested=inside, tags={"valence.run": self.name})
        self.mlflow = mlflow

    def log_params(self, params: Mapping[str, str]) -> None:
        """As :class:`Tracker`; MLflow takes 6000 characters a value."""
        self.mlflow.log_params({name: value[:6000] for name, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As :class:`Tracker`."""
        self.mlflow.log_metrics(dict(metrics), step=step)

    def log_file(self, path: Path) -> None:
        """As :class:`Tracker`."""
        self.mlflow.log_artifact(str(path))

    def finish(self, *, failed: bool) -> None:
        """As :class:`Tracker`, once what the Trainer sent has arrived."""
        self.mlflow.flush_async_logging()
        self.mlflow.end_run("FAILED" if failed else "FINISHED")


class WandB(Tracker):
    """Weights & Biases: files for ``wandb sync``, unless ``WANDB_MODE`` says otherwise."""

    module = "wandb"
    install = "pip install wandb"

    def start(self) -> None:
        """As :class:`Tracker`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=self.name, dir=str(self.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off", save_code=False),
        )  # fmt: skip

    def log_params(self, params: Mapping[str, str]) -> None:
        """As :class:`Tracker`."""
        self.run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As :class:`Tracker`; final numbers are the summary."""
        if step is None:
            self.run.summary.update(dict(metrics))
        else:
            self.run.log({**_by_split(metrics), "train/global_step": step})

    def log_file(self, path: Path) -> None:
        """As :class:`Tracker`."""
        self.run.log_artifact(str(path), name=f"{self.name}-{path.stem}", type="result")

    def finish(self, *, failed: bool) -> None:
        """As :class:`Tracker`."""
        self.run.finish(exit_code=int(failed))


class Trackio(Tracker):
    """An SQLite file here, or the Space that ``TRACKIO_SPACE_ID`` names."""

    module = "trackio"
    install = "pip install trackio"

    def start(self) -> None:
        """As :class:`Tracker`; the Trainer's callback ends the run, which is taken up again."""
        os.environ.setdefault("TRACKIO_DIR", str(self.folder))
        import trackio

        self.trackio = trackio
        self._resume()

    def _resume(self) -> None:
        if self.trackio.context_vars.current_run.get() is None:
            self.trackio.init(project=PROJECT, name=self.name, resume="allow", embed=False)

    def log_params(self, params: Mapping[str, str]) -> None:
        """As :class:`Tracker`."""
        self._resume()
        self.trackio.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As :class:`Tracker`."""
        self._resume()
        if step is None:
            self.trackio.log(dict(metrics))
        else:
            self.trackio.log({**_by_split(metrics), "train/global_step": step})

    def log_file(self, path: Path) -> None:
        """As :class:`Tracker`."""
        self._resume()
        name = f"{self.name}-{path.stem}"
        self.trackio.log_artifact(str(path), name=name, type="result")

    def finish(self, *, failed: bool) -> None:
        """As :class:`Tracker`."""
        self._resume()
        self.trackio.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": Trackio,
}


def _by_split(metrics: Mapping[str, float]) -> dict[str, float]:
    """The Trainer's names as its callbacks write them: ``eval_x`` → ``eval/x``, ``train/x``."""
    from transformers.integrations.integration_utils import rewrite_logs

    named: dict[str, float] = rewrite_logs(dict(metrics))  # type: ignore[no-untyped-call]
    return named
