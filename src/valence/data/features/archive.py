"""Audio and vision features of a corpus: converted once, then read row by row from disk.

An archive is a folder: ``rows.parquet`` (split, id, text, label, lengths, further labels),
``<split>.<modality>.safetensors`` (``steps``, the real steps of all rows one after the other,
(total, d) float32) and ``manifest.json``. Steps are read through a memory map, so reading
takes the memory of a batch, not of the archive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from valence.data.features.mmsa import FEATURES
from valence.errors import DataError

SPLITS = ("train", "validation", "test")
_BLOCK = 1 << 20
_MAPPED_MOST = 256 << 20
"""Bytes read from a memory map before it is closed: its pages count as the process's memory."""


@dataclass(frozen=True)
class FeatureCard:
    """What is known of a multimodal data set.

    Attributes:
        title: One line.
        language: ISO 639-1 code.
        label_range: Least and greatest intensity.
        scale: How it is scored; see ``valence.evaluation.regression``.
        steps: Published length limits of text, audio and vision.
        widths: Published widths of a step of text, audio and vision.
        rows: Published rows of train, validation and test.
        files: Where to get the feature file.
        source: Where it comes from.
    """

    title: str
    language: str
    label_range: tuple[float, float]
    scale: str
    steps: tuple[int, int, int]
    widths: tuple[int, int, int]
    rows: tuple[int, int, int]
    files: str
    source: str


_MMSA = "the data links of https://github.com/thuiar/MMSA (Processed/unaligned_50.pkl)"

FEATURE_CARDS: dict[str, FeatureCard] = {
    "mosi": FeatureCard(
        "CMU-MOSI, opinions on films in video", "en", (-3.0, 3.0), "mosi",
        (50, 375, 500), (768, 5, 20), (1284, 229, 686), _MMSA,
        "Zadeh et al. 2016, IEEE Intelligent Systems",
    ),
    "mosei": FeatureCard(
        "CMU-MOSEI, opinions of a thousand speakers in video", "en", (-3.0, 3.0), "mosi",
        (50, 500, 500), (768, 74, 35), (16326, 1871, 4659), _MMSA,
        "Zadeh et al. 2018, ACL",
    ),
    "ch-sims": FeatureCard(
        "CH-SIMS, scenes of Chinese films and series", "zh", (-1.0, 1.0), "ch-sims",
        (39, 400, 55), (768, 33, 709), (1368, 456, 457),
        _MMSA.replace("unaligned_50", "unaligned_39"),
        "Yu et al. 2020, ACL",
    ),
}  # fmt: skip
"""The multimodal corpora known by name."""


class Manifest(BaseModel):
    """Contents of ``manifest.json``."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    source: str
    """File name of what was converted."""
    sha256: str
    rows: dict[str, int]
    """By split."""
    widths: dict[str, int]
    """Numbers in a step, by modality."""
    longest: dict[str, int]
    """Most steps of a row, by modality."""
    steps: dict[str, dict[str, int]]
    """Steps of all rows, by split and modality."""
    zeroed: dict[str, dict[str, int]]
    """Numbers that were not finite and became 0, by modality and kind."""
    notes: tuple[str, ...] = ()
    extractor: dict[str, Any] | None = None
    """How features were made from clips (``ExtractorSettings``), where they were."""


@dataclass(frozen=True)
class FeatureBatch:
    """Rows padded to the longest of them.

    Attributes:
        steps: By modality, (B, L, d) float32, zero in the padding.
        masks: By modality, (B, L) bool, true at real steps.
        texts: B texts.
        labels: (B,) float32 intensities.
        ids: B row names.
        truncated: Rows truncated at a limit, by modality.
    """

    steps: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    texts: list[str]
    labels: np.ndarray
    ids: list[str]
    truncated: dict[str, int] = field(default_factory=dict)


class FeatureSplit:
    """The rows of one split; features stay on disk until :meth:`batch` reads some.

    Args:
        folder: The archive.
        name: The split.
        table: Its rows of ``rows.parquet``.
    """

    def __init__(self, folder: Path, name: str, table: pd.DataFrame) -> None:
        self.folder, self.name, self.table = folder, name, table
        self.ids: list[str] = table["id"].tolist()
        self.texts: list[str] = table["text"].tolist()
        self.labels = table["label"].to_numpy(dtype=np.float32)
        self.lengths = {m: table[f"{m}_length"].to_numpy(dtype=np.int64) for m in FEATURES}
        self.offsets = {m: np.concatenate([[0], n.cumsum()]) for m, n in self.lengths.items()}
        self._files: dict[str, Any] = {}
        self._mapped = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the files for itself.
        return self.__dict__ | {"_files": {}, "_mapped": 0}

    def row(self, modality: str, index: int) -> np.ndarray:
        """(length, d) real steps of one row."""
        start, end = self.offsets[modality][index : index + 2]
        return self._read(modality, int(start), int(end))

    def batch(
        self, indices: Sequence[int] | np.ndarray, *, limits: Mapping[str, int] | None = None
    ) -> FeatureBatch:
        """The rows at ``indices``, padded.

        Args:
            indices: Row numbers in this split.
            limits: Most steps by modality; later steps of a row are left out and counted.
        """
        rows = np.asarray(indices, dtype=np.int64)
        steps, masks, truncated = {}, {}, {}
        for name in FEATURES:
            limit = (limits or {}).get(name)
            whole = self.lengths[name][rows]
            lengths = whole if limit is None else whole.clip(max=limit)
            steps[name], masks[name] = self._padded(name, rows, lengths)
            truncated[name] = int((lengths < whole).sum())
        return FeatureBatch(
            steps, masks, [self.texts[i] for i in rows], self.labels[rows],
            [self.ids[i] for i in rows], truncated,
        )  # fmt: skip

    def statistics(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """(d,) mean and standard deviation of a modality's real steps, float32."""
        total, width = int(self.offsets[modality][-1]), self._width(modality)
        block = max(1, _BLOCK // width)
        sums, squares = np.zeros(width), np.zeros(width)
        # Around the first steps' mean, so that large offsets cost no precision.
        center = self._read(modality, 0, min(block, total)).mean(0) if total else np.zeros(width)
        for start in range(0, total, block):
            part = self._read(modality, start, min(total, start + block)) - center.astype(float)
            sums += part.sum(0)
            squares += (part**2).sum(0)
        mean = sums / max(1, total)
        deviation = np.sqrt((squares / max(1, total) - mean**2).clip(min=0))
        return (mean + center).astype(np.float32), deviation.astype(np.float32)

    def _padded(
        self, modality: str, rows: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        longest = max(1, int(lengths.max(initial=0)))
        steps = np.zeros((len(rows), longest, self._width(modality)), dtype=np.float32)
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            start = int(self.offsets[modality][row])
            steps[i, :length] = self._read(modality, start, start + int(length))
        return steps, np.arange(longest) < lengths[:, None]

    def _open(self, modality: str) -> Any:
        if modality not in self._files:
            from safetensors import safe_open

            path = self.folder / steps_file(self.name, modality)
            self._files[modality] = safe_open(path, "np").get_slice("steps")  # type: ignore[no-untyped-call]
        return self._files[modality]

    def _width(self, modality: str) -> int:
        return int(self._open(modality).get_shape()[1])

    def _read(self, modality: str, start: int, end: int) -> np.ndarray:
        if start == end:  # safetensors refuses an empty slice at the end
            return np.zeros((0, self._width(modality)), dtype=np.float32)
        steps: np.ndarray = self._open(modality)[start:end]
        self._mapped += steps.nbytes
        if self._mapped > _MAPPED_MOST:
            self._files, self._mapped = {}, 0
        return steps


@dataclass(frozen=True)
class FeatureView:
    """Some rows of a :class:`FeatureSplit`, in an order of their own.

    Attributes:
        split: Where they are.
        rows: (N,) int64 row numbers in it.
        source: Hash of what the archive was made from.
    """

    split: FeatureSplit
    rows: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int] | np.ndarray) -> FeatureView:
        """The rows at ``indices`` of this view."""
        return FeatureView(self.split, self.rows[np.asarray(indices, dtype=np.int64)], self.source)

    def batch(
        self, indices: Sequence[int] | np.ndarray, *, limits: Mapping[str, int] | None = None
    ) -> FeatureBatch:
        """As :meth:`FeatureSplit.batch`, by the numbers of this view."""
        return self.split.batch(self.rows[np.asarray(indices, dtype=np.int64)], limits=limits)

    def lengths(self, modality: str) -> np.ndarray:
        """(N,) real steps."""
        lengths: np.ndarray = self.split.lengths[modality][self.rows]
        return lengths

    def width(self, modality: str) -> int:
        """Numbers in a step."""
        return self.split._width(modality)

    def statistics(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """(d,) mean and standard deviation of the real steps of these rows, float32."""
        if len(self) == len(self.split):
            return self.split.statistics(modality)
        steps = [self.split.row(modality, int(row)) for row in self.rows]
        joined = np.concatenate(steps).astype(np.float64)
        if not len(joined):
            return np.zeros(self.width(modality), np.float32), np.zeros(
                self.width(modality), np.float32
            )
        return joined.mean(0).astype(np.float32), joined.std(0).astype(np.float32)


@dataclass(frozen=True)
class FeatureArchive:
    """A converted archive.

    Attributes:
        folder: Where it is.
        manifest: What it holds.
        table: ``rows.parquet``.
    """

    folder: Path
    manifest: Manifest
    table: pd.DataFrame

    @classmethod
    def open(cls, folder: str | Path) -> FeatureArchive:
        """Open an archive that ``valence.data.features.convert`` wrote; features are not read yet.

        Raises:
            DataError: if it is none, or a part is missing or does not fit.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        try:
            table = pd.read_parquet(folder / "rows.parquet")
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / 'rows.parquet'} cannot be read: {error}") from None
        archive = cls(folder, manifest, table)
        for split in SPLITS:
            archive._check(split)
        return archive

    def split(self, name: str) -> FeatureSplit:
        """The rows of ``train``, ``validation`` or ``test``.

        Raises:
            DataError: if there is no such split.
        """
        if name not in SPLITS:
            raise DataError(f"{self.folder}: no split {name!r}; it has {', '.join(SPLITS)}")
        rows = self.table[self.table["split"] == name].reset_index(drop=True)
        return FeatureSplit(self.folder, name, rows)

    def _check(self, name: str) -> None:
        split = self.split(name)
        for modality in FEATURES:
            try:
                shape = tuple(split._open(modality).get_shape())
            except Exception as error:  # safetensors raises errors of its own
                path = self.folder / steps_file(name, modality)
                raise DataError(f"{path} cannot be read ({error}); convert it again") from None
            expected = (int(split.offsets[modality][-1]), self.manifest.widths[modality])
            if shape != expected:
                raise DataError(
                    f"{self.folder / steps_file(name, modality)} holds {shape} and the rows need "
                    f"{expected}; convert it again"
                )


def steps_file(split: str, modality: str) -> str:
    """Name of the file of a modality's steps."""
    return f"{split}.{modality}.safetensors"


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json`` of ``folder``.

    Raises:
        DataError: if it is missing or not one Valence wrote.
    """
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "is missing; use a folder that valence features convert wrote"
        raise DataError(f"{path} {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{path} is not an archive of format 1 ({first['msg']}); convert it again"
        ) from None
