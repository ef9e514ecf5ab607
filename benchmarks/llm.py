"""Two things that are done at once here and one by one elsewhere, in processor seconds.

Demonstrations: for every training text the nearest other text of each label, by one product
per block, against one query at a time with 5,000 neighbours of which all but a few are thrown
away. Both read the same vectors; embedding is measured by itself, since it is the same work
wherever each text is embedded once.

Answers: likelihoods of all labels with what questions share computed once, against
``generate(max_new_tokens=5)`` one text at a time, on the same model of random weights (speed
does not depend on them). The labels chosen with the shortcut are held to those without.

    python benchmarks/llm.py [train.csv]

Texts are those of a CSV (``text``, ``label``), 2,020 of the built-in corpus when none is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from valence.data.demo import demo_dataset
from valence.llm.local import LanguageModel
from valence.llm.prompts import Demo, worded
from valence.llm.retrieval import NONE, Embedder, Pool, nearest_by_label
from valence.models.encoder import encoder_location
from valence.spec import BUILT_IN_ENCODER, EncoderSpec

NEIGHBOURS = 5000
ROWS = 2020
ASKED = 24
SEARCH_TARGET, SCORE_TARGET = 20, 5


def texts_and_labels() -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    if len(sys.argv) > 1:
        table = pd.read_csv(sys.argv[1])
        texts, labels = table["text"].astype(str).tolist()[:ROWS], table["label"][:ROWS]
    else:
        data = demo_dataset()
        names = np.array(data.classes)
        texts, labels = data.train.texts[:ROWS], pd.Series(names[data.train.labels[:ROWS]])
    classes = tuple(sorted(labels.unique()))
    return texts, labels.map(classes.index).to_numpy(dtype=np.int64), classes


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def one_by_one(pool: Pool) -> np.ndarray:
    """One query at a time, its 5,000 neighbours in order, the first other text of each label."""
    found = np.full((len(pool.labels), pool.class_count), NONE)
    for i, query in enumerate(pool.vectors):
        near = np.argsort(-(pool.vectors @ query), kind="stable")[:NEIGHBOURS]
        for row in near.tolist():
            label = pool.labels[row]
            if pool.groups[row] != pool.groups[i] and found[i, label] == NONE:
                found[i, label] = row
                if (found[i] != NONE).all():
                    break
    return found


def retrieval(texts: list[str], labels: np.ndarray, classes: tuple[str, ...]) -> bool:
    embedder = Embedder(EncoderSpec(), device="cpu")
    cold, vectors = seconds(lambda: embedder(texts))
    warm, _ = seconds(lambda: embedder(texts))
    groups = np.unique(texts, return_inverse=True)[1]
    pool = Pool(np.asarray(vectors), labels, groups, len(classes))
    slow, single = seconds(lambda: one_by_one(pool))
    fast, block = seconds(lambda: nearest_by_label(pool.vectors, groups, pool))
    same = float((np.asarray(block)[:, :, 0] == single).mean())
    print(
        f"demonstrations for {len(texts)} texts: {slow:.2f} s one by one, {fast:.3f} s at once: "
        f"{slow / fast:.0f} times faster, {same:.2%} the same; embedding {cold:.1f} s once, "
        f"{warm:.2f} s from the cache; target {SEARCH_TARGET}, reached: "
        f"{slow / fast >= SEARCH_TARGET}"
    )
    return slow / fast >= SEARCH_TARGET


def make_model(folder: Path) -> LanguageModel:
    """A small Qwen2 of random weights under a real vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(encoder_location(BUILT_IN_ENCODER))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=688, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    return LanguageModel(Qwen2ForCausalLM(config), tokenizer)


def answers(texts: list[str], labels: np.ndarray, classes: tuple[str, ...]) -> bool:
    wording = worded("self-alignment", classes)
    demos = tuple(Demo(texts[int(np.flatnonzero(labels == c)[0])], c) for c in wording.demo_classes)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
    asked = [model.question(wording, text, demos) for text in texts[-ASKED:]]
    prompts = model.encode(asked)
    ids = model.answer_ids(asked[0], wording.answers)
    slow, _ = seconds(lambda: [model.decode([prompt], 5) for prompt in prompts])
    fast, shared = seconds(lambda: model.likelihoods(prompts, ids))
    plain, whole = seconds(lambda: np.stack([model.likelihoods_plain(p, ids) for p in prompts]))
    a, b = np.asarray(shared), np.asarray(whole)
    same = bool((a.argmax(1) == b.argmax(1)).all())
    print(
        f"answers to {ASKED} texts after {len(demos)} demonstrations, "
        f"{np.mean([len(p) for p in prompts]):.0f} tokens each: {slow:.2f} s generating one by "
        f"one, {plain:.2f} s scoring without the shortcut, {fast:.2f} s with it: "
        f"{slow / fast:.1f} times faster than generating; same labels: {same}, likelihoods differ "
        f"by {np.abs(a - b).max():.1e} at most; target {SCORE_TARGET}, reached: "
        f"{same and slow / fast >= SCORE_TARGET}"
    )
    return same and slow / fast >= SCORE_TARGET


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    texts, labels, classes = texts_and_labels()
    reached = [retrieval(texts, labels, classes), answers(texts, labels, classes)]
    raise SystemExit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
