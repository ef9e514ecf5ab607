"""A long-tailed subsample as files: the three splits and a picture of class sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.sources import load_dataset
from valence.reports.plots import class_colors, new_figure, side_legend
from valence.storage import atomic

PICTURE = "longtail.png"


def write_long_tail(
    spec: DataSpec, out: Path, *, seed: int, data_dir: str | Path | None = None
) -> Dataset:
    """Write ``train.csv``, ``validation.csv``, ``test.csv`` and a picture of class sizes.

    Args:
        spec: The data, its subsampling and its label noise.
        out: Folder; made if it is not there.
        seed: Decides which rows.
        data_dir: Folder of corpora, as for ``load_dataset``.

    Returns:
        The rows that were written.

    Raises:
        DataError: if the data cannot be read or subsampled.
        RunError: if the folder cannot be written.
    """
    none = {"train_counts": None, "train_total": None, "imbalance_ratio": None}
    whole = spec.model_copy(update={**none, "head_count": None, "noise_share": 0.0})
    before = load_dataset(whole, seed=seed, data_dir=data_dir)
    after = load_dataset(spec, seed=seed, data_dir=data_dir)
    counts = [data.train.counts(len(after.classes)) for data in (before, after)]
    for name in ("train", "validation", "test"):
        split = getattr(after, name)
        labels = [after.classes[i] for i in split.labels]
        frame = pd.DataFrame({"text": split.texts, "label": labels, "id": split.ids})
        with atomic.new_file(out / f"{name}.csv") as path:
            pd.concat([frame, split.extra], axis=1).to_csv(path, index=False)
    with atomic.new_file(out / PICTURE) as path:
        class_sizes(after.classes, counts[0], counts[1]).savefig(path, dpi=160, facecolor="white")
    return after


def class_sizes(classes: tuple[str, ...], before: np.ndarray, after: np.ndarray) -> Figure:
    """Training rows per class before and after subsampling, largest first, on a log scale.

    Args:
        classes: C names.
        before: (C,) training rows before subsampling.
        after: (C,) training rows after it.
    """
    order = np.argsort(-after, kind="stable")
    figure, axes = new_figure(max(6.0, 0.2 * len(classes) + 2.5), 3.4)
    places = np.arange(len(classes))
    gray, blue = "#c8ced6", class_colors(1)[0]
    axes.bar(places, before[order], width=0.8, color=gray, label="before")
    axes.bar(places, after[order], width=0.8, color=blue, label="after")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    few = len(classes) <= 12
    if few:
        for place, count in zip(places, after[order], strict=True):
            axes.text(float(place), float(count), f" {count}", ha="center", va="bottom", fontsize=7)
    names = [classes[i] for i in order]
    rotation = 0 if few and max(map(len, names)) < 9 else 60
    axes.set_xticks(places, names, rotation=rotation, ha="right" if rotation else "center")
    largest, smallest = int(after.max()), int(after[after > 0].min())
    axes.set_ylabel("training rows (log scale)")
    axes.set_title(
        f"{after.sum()} of {before.sum()} rows; largest class {largest}, smallest {smallest}: "
        f"ratio {largest / smallest:.3g}",
        loc="left",
    )
    side_legend(axes)
    return figure
