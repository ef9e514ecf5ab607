"""The options that several commands share, declared once: groups of them, and single ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from valence.cli import console
from valence.cli.option_groups import OldName as OldName
from valence.cli.option_groups import OptionGroup as OptionGroup
from valence.cli.option_groups import with_groups as with_groups
from valence.errors import SpecError

if TYPE_CHECKING:
    from valence.config.data import DataSpec
    from valence.distributed.device import Hardware
    from valence.distributed.ray_cluster import Cluster


ModelFolder = Annotated[Path, typer.Argument(help="A model folder.")]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="auto (chosen for your texts), multilingual-e5-small, a hub name or a folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Hide progress and notes.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of CSV, TSV and JSONL files, such as latin-1; default: UTF-8."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
SplitName = Annotated[
    str,
    typer.Option(
        rich_help_panel="Data",
        help="Split to use, if the data has several.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class TextOptions(OptionGroup):
    """How a source of texts is read."""

    panel: ClassVar[str] = "Data"
    text_column: Annotated[str | None, typer.Option(help="Column with the texts.")] = None
    encoding: Encoding = None
    no_header: Annotated[bool, typer.Option("--no-header", help="The CSV has no header line.")] = (
        False
    )
    query: Annotated[str | None, typer.Option(help="SELECT statement for a database.")] = None
    table: Annotated[
        str | None, typer.Option(help="Table to read, if the database has several.")
    ] = None
    query_timeout: Annotated[
        float | None, typer.Option(help="Maximum seconds for the database query [300].")
    ] = None

    def settings(self) -> dict[str, Any]:
        """The dotted settings that were given."""
        names = ("text_column", "encoding", "query", "table", "query_timeout")
        given = {f"data.{n}": v for n in names if (v := getattr(self, n)) is not None}
        return {**given, "data.header": False} if self.no_header else given

    def spec(self, name: str, *, target: str | None = None) -> DataSpec:
        """The rows of a source, read as the options say.

        Args:
            name: A file, folder, card, hub id or database URL.
            target: What a saved model predicts of them; as the options say when None.

        Raises:
            SpecError: if an option does not fit the source.
        """
        from valence.config.data import DataSpec
        from valence.config.spec import build

        given = {path.removeprefix("data."): value for path, value in self.settings().items()
                 if path.startswith("data.")}  # fmt: skip
        model = {} if target is None else {"target": target}
        return build(DataSpec, {**given, **model, "name": name})


@dataclass(frozen=True, kw_only=True)
class RowOptions(TextOptions):
    """How a source of labeled rows is read."""

    label_column: Annotated[str | None, typer.Option(help="Column with the labels.")] = None
    split_column: Annotated[
        str | None,
        typer.Option(help="Column with the split of each row [split]; none ignores it."),
    ] = None
    normalize_labels: Annotated[
        bool,
        typer.Option(
            "--normalize-labels",
            help="Merge labels that differ only in case, spaces or invisible characters.",
        ),
        OldName("--normalise-labels"),
    ] = False
    group: Annotated[
        str | None,
        typer.Option(
            help="Column with the group of each row, to score groups separately [language]."
        ),
    ] = None
    groups: Annotated[str | None, typer.Option(help="Use only these groups: en,de.")] = None
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of corpora.", envvar="VALENCE_DATA", show_envvar=True),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: train.epochs=6. Repeatable."),
    ] = None

    def settings(self) -> dict[str, Any]:
        """The dotted settings that were given, those of ``--set`` last."""
        from valence.config.overrides import parse_setting

        given = super().settings()
        if self.label_column is not None:
            given["data.label_column"] = self.label_column
        if self.split_column is not None:
            given["data.split_column"] = self.split_column
        if self.normalize_labels:
            given["data.normalize_labels"] = True
        if self.group is not None:
            given["data.group"] = self.group
        if self.groups:
            given["data.groups"] = comma_separated(self.groups)
        given |= dict(parse_setting(text) for text in self.set_ or [])
        check_device(given.get("train.device"))
        return given

    def refuse_other_settings(self, *read: str) -> None:
        """Refuse what ``--set`` names and the command would not read.

        Args:
            read: Parts of a spec that are read, as ``data``.

        Raises:
            SpecError: with the first other setting.
        """
        for path in self.settings():
            if path.partition(".")[0] not in read:
                raise SpecError(
                    f"--set {path} has no effect here; only {' and '.join(read)} settings do"
                )


@dataclass(frozen=True, kw_only=True)
class DataOptions(RowOptions):
    """Labeled rows that a command cannot do without."""

    data: Annotated[
        str, typer.Argument(help="Labeled file, folder, corpus name, hub id or database URL.")
    ]


@dataclass(frozen=True, kw_only=True)
class OtherDataOptions(RowOptions):
    """Labeled rows that may be given to a command on a saved model."""

    data: Annotated[
        str | None,
        typer.Option(help="Labeled rows: all of a file, or one --split of a source with several."),
    ] = None

    def other_rows(self, *, target: str) -> DataSpec | None:
        """The rows of ``--data``; None without it.

        Args:
            target: What the model predicts.

        Raises:
            SpecError: if an option says how to read them, and they are not given.
        """
        self.refuse_other_settings("data")
        if self.data is not None:
            return self.spec(self.data, target=target)
        given = next(iter(self.settings()), None)
        if given is not None:
            raise SpecError(f"{given} needs --data")
        return None


@dataclass(frozen=True, kw_only=True)
class HardwareOptions(OptionGroup):
    """What a command computes with."""

    panel: ClassVar[str] = "Hardware"
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto.")] = None
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.")] = None

    def prepared(self, *, elsewhere: bool = False) -> str:
        """The device, which is there, after this process has got its threads.

        Args:
            elsewhere: Whether other machines compute; they check their own devices.

        Raises:
            SpecError: if the device is unknown or not there, or there are no threads.
        """
        if not elsewhere:
            check_device(self.device)
        if self.threads is not None:
            _use_threads(self.threads)
        return self.device or "auto"

    def settings(self, *, elsewhere: bool = False) -> dict[str, Any]:
        """The dotted settings of a training, as :meth:`prepared` leaves them."""
        self.prepared(elsewhere=elsewhere)
        return {} if self.device is None else {"train.device": self.device}


@dataclass(frozen=True, kw_only=True)
class TrainingHardware(HardwareOptions):
    """What is trained with."""

    precision: Annotated[
        Literal["fp32", "bf16", "auto"] | None,
        typer.Option(help="fp32, bf16, or auto: bf16 on GPUs that support it."),
    ] = None

    def settings(self, *, elsewhere: bool = False) -> dict[str, Any]:
        """As :meth:`HardwareOptions.settings`."""
        given = super().settings(elsewhere=elsewhere)
        return given if self.precision is None else {**given, "train.precision": self.precision}


@dataclass(frozen=True, kw_only=True)
class ModelHardware(TrainingHardware):
    """What a saved model is run with."""

    batch_tokens: Annotated[
        int | None, typer.Option(help="Maximum tokens per batch; default: chosen for the device.")
    ] = None

    def requested(self, *, elsewhere: bool = False) -> Hardware:
        """How a predictor runs its model.

        Args:
            elsewhere: As for :meth:`HardwareOptions.prepared`.

        Raises:
            SpecError: as :meth:`HardwareOptions.prepared`, or if a number is too small.
        """
        from valence.distributed.device import Hardware

        if not elsewhere:
            check_device(self.device)
        return Hardware(
            self.threads, self.device or "auto", self.precision or "fp32", self.batch_tokens
        )


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(OptionGroup):
    """Which processes or machines do the work."""

    panel: ClassVar[str] = "Hardware"
    workers: Annotated[
        int | None,
        typer.Option(help="Parallel processes; default: 1 locally, as many as fit on Ray."),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster; default: start one here.", envvar="RAY_ADDRESS"
        ),
    ] = None

    def cluster(self, *, cpus: float, gpus: float) -> Cluster:
        """The machines, and the cores and GPUs that one piece of work requests of them.

        Raises:
            RunError: if a number is not possible.
        """
        from valence.distributed.ray_cluster import Cluster

        return Cluster(self.ray_address, self.workers, cpus, gpus)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(OptionGroup):
    """What a command prints."""

    panel: ClassVar[str] = "Output"
    json: Json = False
    quiet: Quiet = False


@dataclass(frozen=True, kw_only=True)
class TableOptions(OutputOptions):
    """What a command prints, where it is a table of many columns."""

    wide: Annotated[
        bool, typer.Option("--wide", help="Print all columns, even if the terminal is too narrow.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunsOptions(TableOptions):
    """Where runs are stored, and what is printed."""

    runs: Annotated[Path, typer.Option(help="Folder for finished runs.")] = Path("runs")


@dataclass(frozen=True, kw_only=True)
class TrackedRunsOptions(RunsOptions):
    """Where new runs are stored and logged, and what is printed."""

    track: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER",
            help="Also log to tensorboard, mlflow, wandb or trackio.",
        ),
    ] = None

    def check(self) -> None:
        """Refuse a tool that cannot be used.

        Raises:
            UnknownNameError, RunError: if it is unknown or not installed.
        """
        if self.track is not None:
            from valence.runs.tracking import check_tracker

            check_tracker(self.track)

    def print_place(self) -> None:
        """Say where the tool keeps what was logged."""
        if self.track is not None and not self.quiet:
            from valence.runs.tracking import tracking_place

            console.info(f"Tracked: {tracking_place(self.track, self.runs)}")


def comma_separated(text: str | None) -> tuple[str, ...]:
    """``"en, de"`` → ``("en", "de")``; nothing of nothing."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def encoder_settings(encoder: str | None) -> Mapping[str, Any]:
    """The dotted setting of ``--encoder``, if it is given."""
    return {} if encoder is None else {"encoder.name": encoder}


def print_unread(methods: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Say which of the settings that were given none of some methods reads."""
    from valence.methods.registry import unread

    skipped = [set(unread(name, settings)) for name in methods]
    names = sorted(set.intersection(*skipped) - {"train.device", "train.precision"})
    if names:
        who = f"{methods[0]} does not use" if len(methods) == 1 else "No method here uses"
        console.info(f"Note: {who} {', '.join(names)}; left out")


def check_device(name: Any) -> None:
    """Refuse a device that is not there, whatever the method would do with it.

    Raises:
        SpecError: if it is unknown or not there.
    """
    from valence.distributed import device

    if name is not None:
        device.check_device(str(name))


def _use_threads(threads: int) -> None:
    """Let this process, and those it starts, use so many threads."""
    from valence.distributed.ray_cluster import use_threads

    if threads < 1:
        raise SpecError(f"{threads} threads are not possible; use at least 1")
    use_threads(threads)
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # loaded before, it has read the environment already
        import torch

        torch.set_num_threads(threads)
