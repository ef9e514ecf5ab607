"""Epochs of lstm-roberta on a frozen encoder: token states from the cache against recomputing.

Two encoders, made on the spot or built in, since the gain is the ratio of encoder to head: one
of the size of roberta-base (random weights: speed does not depend on them), and the built-in
one, a quarter as deep and half as wide. Two heads, for the same reason: the published sizes, and
those that tuning chose on TweetEval (docs/results.md). Texts are the tweets of a CSV (``text``
column), or of the built-in corpus when no file is given. Prints seconds, ratios, and the largest
difference of the logits. Times are of the processor, so that other work beside it matters less.

    python benchmarks/frozen_cache.py [tweets.csv]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from tests.models import untrained
from valence.config.data import DataSpec
from valence.config.sections import BUILT_IN_ENCODER
from valence.data.batches import Encoded
from valence.data.collate import pad
from valence.data.dataset import Dataset
from valence.data.demo import demo_dataset
from valence.data.examples import Examples
from valence.methods.registry import make_spec
from valence.models.built_in import encoder_location
from valence.models.torch_model import TorchModel

BATCH = 64
TARGET = 8
TUNED = {"head.hidden_size": 128, "head.layers": 1}


def base_sized(folder: Path) -> str:
    """A random BERT of roberta-base's depth and width, with the built-in tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(encoder_location(BUILT_IN_ENCODER))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    return str(folder)


def epoch(model: TorchModel, encoded: Encoded, labels: np.ndarray) -> float:
    """Processor seconds of one pass with gradients and steps, in batches of like length."""
    trained = [p for p in model.classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    order = np.argsort([len(ids) for ids in encoded.input_ids], kind="stable")
    model.classifier.train()
    start = time.process_time()
    for rows in np.array_split(order, max(1, len(order) // BATCH)):
        batch = pad([encoded.row(int(i)) for i in rows], model.tokenizer.pad_id)
        loss = model.classifier(**batch, labels=torch.from_numpy(labels[rows]))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - start


def compare(name: str, settings: dict[str, Any], data: Dataset, texts: list[str]) -> float:
    model = untrained(make_spec("lstm-roberta", DataSpec(), settings=settings), data.without_test())
    labels = np.arange(len(texts)) % len(data.classes)
    plain = model.encode(texts)
    before = model.predict(Examples(texts)).logits
    model.enable_hidden_state_cache()
    start = time.process_time()
    kept = model.encode(texts)
    filling = time.process_time() - start
    gap = float(np.abs(model.predict(Examples(texts)).logits - before).max())
    cached, computed = epoch(model, kept, labels), epoch(model, plain, labels)
    tokens = np.mean([len(ids) for ids in plain.input_ids])
    print(
        f"{name}: {len(texts)} texts of {tokens:.0f} tokens; filling the cache {filling:.1f} s; an "
        f"epoch {computed:.1f} s computed, {cached:.1f} s from the cache: "
        f"{computed / cached:.1f} times faster; logits differ by {gap:.1e} at most"
    )
    return computed / cached


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    data = demo_dataset()
    texts = data.train.texts[:512]
    if len(sys.argv) > 1:
        texts = pd.read_csv(sys.argv[1])["text"].astype(str).tolist()[:512]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VALENCE_CACHE"] = f"{folder}/cache"
        base = {"encoder.name": base_sized(Path(folder) / "base")}
        large = compare("roberta-base's size", base, data, texts)
        tuned = compare("roberta-base's size, tuned head", base | TUNED, data, texts)
        compare("built-in encoder", {"encoder.name": BUILT_IN_ENCODER}, data, texts)
    print(
        f"target {TARGET}; reached with the published head: {large >= TARGET}, "
        f"with the tuned one: {tuned >= TARGET}"
    )


if __name__ == "__main__":
    main()
