"""Run folders: one folder per finished run, written whole or not at all.

A folder holds ``spec.yaml``, ``result.json``, ``predictions.parquet`` (validation and test
rows with their logits, and training rows where a method has out-of-fold ones),
``history.jsonl``, ``features.npz`` and, where it was asked for, ``model/``. A run that failed
leaves ``<key>.failed.json`` and is tried again next time.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from valence.config.spec import RunSpec
from valence.errors import RunError, SpecError
from valence.evaluation.task import Classification, Regression, Task
from valence.methods.registry import find_method, parse_spec
from valence.storage import atomic
from valence.storage.file_lock import locked
from valence.storage.key import ResultKey
from valence.storage.lines import read_lines

if TYPE_CHECKING:
    from valence.data.dataset import Dataset


class RunResult(BaseModel):
    """The result of a run; everything tables, statistics and reports need besides predictions."""

    model_config = ConfigDict(extra="allow")  # fields of a later version are kept

    format: Literal[1, 2] = 2
    key: str
    spec: Annotated[RunSpec, BeforeValidator(lambda v: parse_spec(v) if isinstance(v, dict) else v)]
    dataset: str
    """Short name of the corpus, for tables."""
    fingerprint: str
    synthetic: bool
    classes: tuple[str, ...]
    tail: tuple[int, ...]
    train_counts: tuple[int, ...]
    sizes: dict[str, int]
    """Rows per split."""
    validation: dict[str, float | None]
    test: dict[str, float | None]
    """Scores by metric name (see ``valence.evaluation.classification``, for an intensity
    ``valence.evaluation.regression``); None where undefined."""
    own_best: dict[str, tuple[int, float | None]] = {}
    """For each metric (step, test score) at its own best validation epoch: as many models as
    metrics, so never to be read as one model's scores."""
    group: str = ""
    """The column of the rows' groups, such as language; empty where there is none."""
    groups: dict[str, dict[str, float | None]] = {}
    """Test scores of every group (see ``valence.evaluation.classification.group_scores``)."""
    train_seconds: float
    inference_seconds: float
    """Time to score the test rows."""
    peak_memory_mib: float
    trainable_parameters: int
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = {}

    @property
    def encoder(self) -> str | None:
        """The encoder that the model is made of; None where there is none."""
        return find_method(self.spec.method).encoder_name(self.spec.config)

    @property
    def task(self) -> Task:
        """What was predicted."""
        if self.classes:
            return Classification(self.classes, self.train_counts, self.tail)
        return Regression.of_scale("ch-sims" if "acc2" in self.test else "mosi")


class RunStore:
    """The run folders under one root.

    Args:
        root: Folder of run folders; made when the first run is written.
    """

    def __init__(self, root: str | Path = "runs") -> None:
        self.root = Path(root)

    def key(self, spec: RunSpec, dataset: Dataset) -> str:
        """The folder name of a spec on these rows: readable, and unique by its hash.

        Raises:
            ModelError, SpecError: if what the method reads cannot be found.
        """
        name = Path(spec.data.name).name or "data"
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-").lower() or "data"
        digest = result_key(spec, dataset).digest()
        return f"{stem[:40]}-{spec.method}-s{spec.seed}-{digest}"

    def path(self, key: str) -> Path:
        """Where the run ``key`` is or would be."""
        return self.root / key

    def checkpoint(self, key: str) -> Path:
        """Where an unfinished run keeps what it needs to go on."""
        return self.root / ".unfinished" / key

    def unfinished(self, key: str) -> RunStore:
        """Where a stopped run keeps its result so far, until the run is finished."""
        return RunStore(self.checkpoint(key))

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Keep other processes of this machine from making the same run meanwhile."""
        with locked(self.root / ".unfinished" / f"{key}.lock"):
            yield

    def get(self, key: str) -> RunResult | None:
        """The result of a finished run, or None where there is none.

        Raises:
            RunError: if there is one that cannot be read; it is not made again over it.
        """
        path = self.path(key) / "result.json"
        try:
            return RunResult.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from None
        except (ValidationError, SpecError) as error:
            raise RunError(
                f"{path} cannot be read ({_first_line(error)}); it is damaged or from another "
                f"version of Valence; update Valence, or delete the folder to run it "
                "again"
            ) from None

    def all(self) -> list[RunResult]:
        """Every finished run under the root that can be read, by key; see :meth:`unreadable`."""
        return list(self._read().values())

    def unreadable(self) -> dict[str, str]:
        """Runs that cannot be read, with the reason, by key."""
        reasons: dict[str, str] = {}
        self._read(reasons)
        return reasons

    def _read(self, reasons: dict[str, str] | None = None) -> dict[str, RunResult]:
        results: dict[str, RunResult] = {}
        for key in sorted(path.parent.name for path in self.root.glob("[!.]*/result.json")):
            try:
                result = self.get(key)
            except RunError as error:
                if reasons is not None:
                    reasons[key] = str(error)
                continue
            if result is not None:
                results[key] = result
        return results

    def predictions(self, key: str) -> pd.DataFrame:
        """Rows scored by a run: split, id, text, group (if any), label, predicted, ``logit_<i>``.

        Raises:
            RunError: if the file is missing or truncated.
        """
        path = self.path(key) / "predictions.parquet"
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} cannot be read ({error}); delete the folder and run again"
            ) from None

    def table(self, key: str, name: str) -> pd.DataFrame:
        """A further table of a run (``robustness.csv``); empty where the run has none."""
        path = self.path(key) / name
        return pd.read_csv(path) if path.exists() else pd.DataFrame()

    def history(self, key: str) -> list[dict[str, Any]]:
        """Training history, one record per logged step; empty where a method has none."""
        path = self.path(key) / "history.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in read_lines(path)]

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder to fill; it gets its name only when the block ends without an error.

        Raises:
            RunError: if the disk refuses (full, read-only).
        """
        with atomic.new_folder(self.path(key), advice="finished runs are saved") as folder:
            yield folder
        atomic.remove_file(self.root / f"{key}.failed.json")
        shutil.rmtree(self.checkpoint(key), ignore_errors=True)

    def record_failure(self, key: str, error: BaseException) -> None:
        """Keep why a run failed, beside the finished ones."""
        record = {"key": key, "error": type(error).__name__, "message": str(error)}
        atomic.write_text(self.root / f"{key}.failed.json", json.dumps(record))


def with_guessed_columns(spec: RunSpec, dataset: Dataset) -> RunSpec:
    """The spec with the columns that were guessed for its rows."""
    given = {path for path, _ in dataset.columns if spec.get(path) is not None}
    return spec.override({path: name for path, name in dataset.columns if path not in given})


def result_key(spec: RunSpec, dataset: Dataset) -> ResultKey:
    """Everything that decides the result of a spec on these rows.

    Raises:
        ModelError, SpecError: if what the method reads cannot be found.
    """
    spec = with_guessed_columns(spec, dataset)
    method = find_method(spec.method)
    return ResultKey(
        spec=spec.identity(), rows=dataset.fingerprint, content=method.content(spec.config),
        precision=method.precision(spec.config),
    )  # fmt: skip


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)
