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
    typer.Option(help="multilingual-e5-small, a hub name, a folder, or auto: one for the texts."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no notes.")]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of CSV, TSV and JSONL files, as latin-1; UTF-8 when none."),
]
Seed = Annotated[int, typer.Option(help="Seed of splits and everything random.")]
SplitName = Annotated[
    str,
    typer.Option(
        rich_help_panel="Data",
        help="Which split, of a source with several; of a file all rows are used.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class TextOptions(OptionGroup):
    """How a source of texts is read."""

    panel: ClassVar[str] = "Data"
    text_column: Annotated[str | None, typer.Option(help="Name of the column of texts.")] = None
    encoding: Encoding = None
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line of a CSV is a row, no column names.")
    ] = False
    query: Annotated[
        str | None, typer.Option(help="A SELECT whose rows are used, of a database.")
    ] = None
    table: Annotated[
        str | None, typer.Option(help="The table to read, of a database with several.")
    ] = None
    query_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a database may work on the rows [300].")
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

    label_column: Annotated[str | None, typer.Option(help="Name of the column of labels.")] = None
    split_column: Annotated[
        str | None,
        typer.Option(help="Column that says which split a row is of [split]; none ignores it."),
    ] = None
    normalize_labels: Annotated[
        bool,
        typer.Option(
            "--normalize-labels", "--normalise-labels",
            help="Labels that differ in case, spaces or invisible characters alone are one.",
        ),
    ] = False  # fmt: skip
    group: Annotated[
        str | None, typer.Option(help="Column of groups that are scored one by one [language].")
    ] = None
    groups: Annotated[str | None, typer.Option(help="Only these groups: en,de.")] = None
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of corpora.", envvar="VALENCE_DATA", show_envvar=True),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting: data.features=none, in training train.epochs=6. Repeatable."
        ),
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
                    f"--set {path} changes nothing here; settings of {' and '.join(read)} do"
                )


@dataclass(frozen=True, kw_only=True)
class DataOptions(RowOptions):
    """Labeled rows that a command cannot do without."""

    data: Annotated[
        str, typer.Argument(help="A file, folder, card, hub id or database URL, with labels.")
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
            raise SpecError(f"{given} says how --data is read; name the rows with --data")
        return None


@dataclass(frozen=True, kw_only=True)
class HardwareOptions(OptionGroup):
    """What a command computes with."""

    panel: ClassVar[str] = "Hardware"
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps, or auto: the best there is.")
    ] = None
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; all usable ones when none.")
    ] = None

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
        typer.Option(help="Of torch models; auto: bfloat16 on a GPU that has it."),
    ] = None

    def settings(self, *, elsewhere: bool = False) -> dict[str, Any]:
        """As :meth:`HardwareOptions.settings`."""
        given = super().settings(elsewhere=elsewhere)
        return given if self.precision is None else {**given, "train.precision": self.precision}


@dataclass(frozen=True, kw_only=True)
class ModelHardware(TrainingHardware):
    """What a saved model is run with."""

    batch_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a batch; suits the device when none.")
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
        typer.Option(help="Processes at a time; local: 1, ray: what there is room for."),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster; else one is started here.", envvar="RAY_ADDRESS"),
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
        bool, typer.Option("--wide", help="Print all columns, however wide the terminal is.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunsOptions(TableOptions):
    """Where runs are stored, and what is printed."""

    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs")


@dataclass(frozen=True, kw_only=True)
class TrackedRunsOptions(RunsOptions):
    """Where new runs are stored and logged, and what is printed."""

    track: Annotated[
        str | None,
        typer.Option(
            metavar="[tensorboard|mlflow|wandb|trackio]",
            help="Log curves, settings and scores to this tool; on this machine by default.",
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
        who = f"{methods[0]} does not read" if len(methods) == 1 else "No method here reads"
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
        raise SpecError(f"{threads} threads are not possible; give at least 1")
    use_threads(threads)
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # loaded before, it has read the environment already
        import torch

        torch.set_num_threads(threads)
