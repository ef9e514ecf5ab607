"""Texts a second and core of the built-in encoders, or of those that are named.

Tweets of a CSV (``text`` column), or texts of the built-in corpus when no file is given; sorted by
length, float32, one thread. Times are of the processor, so that other work beside it matters less.
The figures of ``valence encoders`` come from here.

    python benchmarks/encoders.py [tweets.csv] [ENCODER ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER, EncoderSpec
from valence.data.batches import TOKEN_BUDGET, length_batches
from valence.data.collate import pad
from valence.data.demo import demo_dataset
from valence.data.tables import read_table
from valence.models.encoder import Encoder, TextTokenizer

TEXTS = 1000
REPEATS = 3


def texts_per_second(name: str, texts: list[str]) -> tuple[float, float]:
    """Texts a second of processor time, and mean tokens of a text."""
    spec = EncoderSpec(name=name, max_length=128)
    tokenizer, encoder = TextTokenizer(spec), Encoder(spec).eval()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        encoded = tokenizer(texts)
        lengths = [len(ids) for ids in encoded.input_ids]
        with torch.inference_mode():
            for rows in length_batches(lengths, token_budget=TOKEN_BUDGET["cpu"]):
                batch = pad([encoded.input_ids[i] for i in rows], tokenizer.pad_id)
                encoder(batch["input_ids"], batch["attention_mask"])
        seconds.append(time.process_time() - start)
    return len(texts) / min(seconds), float(np.mean(lengths))


def main() -> None:
    torch.set_num_threads(1)
    words = sys.argv[1:]
    path = Path(words.pop(0)) if words and Path(words[0]).suffix == ".csv" else None
    texts = demo_dataset().train.texts if path is None else list(read_table(path)["text"])
    for name in words or (BUILT_IN_ENCODER, MULTILINGUAL_ENCODER):
        rate, tokens = texts_per_second(name, texts[:TEXTS])
        print(f"{name:<24}{rate:6.0f} texts/s a core, {tokens:.0f} tokens a text")


if __name__ == "__main__":
    main()
