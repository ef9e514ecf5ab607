"""Memory of a pass over an archive of MOSEI's size that stays on disk.

Writes 16,326 training rows of 500×74 audio and 500×35 vision steps (3.6 GB) into a folder that
is deleted at the end, then reads all of them twice: for the scaling of the features, and in
shuffled batches of 64 as a training does. For some batches ALMT makes a step, without a text
encoder. Prints seconds and the peak memory of the process in all of this, against 4 GiB, with
the pages of the mapped files.

    python benchmarks/mosei_stream.py [folder for the archive]
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from valence.data.features.archive import (
    FEATURE_CARDS,
    SPLITS,
    FeatureArchive,
    FeatureSplit,
    Manifest,
    steps_file,
)
from valence.data.features.mmsa import FEATURES
from valence.models.fusion import set_feature_statistics
from valence.models.multimodal import ALMT, ALMT_SETUPS
from valence.runs.provenance import peak_memory_mib, reset_peak_memory

BATCH, STEPS, BLOCK = 64, 3, 64
TARGET_MIB = 4096
CARD, SIZES = FEATURE_CARDS["mosei"], ALMT_SETUPS["mosei"]


def write_steps(path: Path, rows: int, steps: int, width: int) -> None:
    """A safetensors file of random steps, written in parts: header, then the numbers."""
    total = rows * steps
    told = {"dtype": "F32", "shape": [total, width], "data_offsets": [0, total * width * 4]}
    header = json.dumps({"steps": told}).encode()
    header += b" " * (-len(header) % 8)
    draw = np.random.default_rng(0)
    with path.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            out.write(draw.standard_normal((count * steps, width), dtype=np.float32).tobytes())


def write_archive(folder: Path) -> FeatureArchive:
    counts = dict(zip(SPLITS, (CARD.rows[0], 2, 2), strict=True))
    tables = []
    for split, rows in counts.items():
        columns: dict[str, object] = {"split": split, "id": [f"{split}{i}" for i in range(rows)]}
        columns |= {"text": "no words", "label": np.linspace(-3, 3, rows, dtype=np.float32)}
        for name in FEATURES:
            steps, width = SIZES.length(name), SIZES.width(name)
            write_steps(folder / steps_file(split, name), rows, steps, width)
            columns[f"{name}_length"] = steps
        tables.append(pd.DataFrame(columns))
    pd.concat(tables, ignore_index=True).to_parquet(folder / "rows.parquet", index=False)
    manifest = Manifest(
        source="made here", sha256="", rows=counts,
        widths={name: SIZES.width(name) for name in FEATURES},
        longest={name: SIZES.length(name) for name in FEATURES},
        steps={s: {name: n * SIZES.length(name) for name in FEATURES} for s, n in counts.items()},
        zeroed={},
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return FeatureArchive.open(folder)


def train(split: FeatureSplit) -> None:
    """One epoch of batches; ALMT learns from the first few."""
    torch.manual_seed(0)
    model = ALMT(SIZES)
    found = {name: split.statistics(name) for name in FEATURES}
    set_feature_statistics(
        model, {n: (torch.from_numpy(m), torch.from_numpy(d)) for n, (m, d) in found.items()}
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    order = np.random.default_rng(1).permutation(len(split))
    for i, start in enumerate(range(0, len(order), BATCH)):
        batch = split.batch(order[start : start + BATCH])
        if i >= STEPS:
            continue
        text = torch.randn(len(batch.ids), SIZES.text_length, SIZES.text_dim)
        audio, vision = (torch.from_numpy(batch.steps[name]) for name in FEATURES)
        logits = model(text, audio, vision).logits[:, 0]
        functional.mse_loss(logits, torch.from_numpy(batch.labels)).backward()
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    try:
        archive = write_archive(folder)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
        split = archive.split("train")
        reset_peak_memory()
        start = time.perf_counter()
        train(split)
        print(
            f"{len(split)} rows, {size:.1f} GiB on disk: {time.perf_counter() - start:.0f} s, "
            f"peak memory {peak_memory_mib('cpu'):.0f} MiB (target {TARGET_MIB})"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
