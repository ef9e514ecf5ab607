"""Which encoder finds demonstrations of the right label: no language model is asked.

For every test text the nearest training text of its own language; the share that has the label of
the text, by language, and the difference of the first two encoders with its 95% interval from a
paired bootstrap over texts.

    python benchmarks/retrievers.py reviews.csv --train 800 --test-per-class 250
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.sources import load_dataset
from valence.llm.retrieval import QUERY_CHARACTERS, Embedder

DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--encoders", default="all-MiniLM-L6-v2,multilingual-e5-small")
    parser.add_argument("--train", type=int)
    parser.add_argument("--test-per-class", type=int)
    parser.add_argument("--seed", type=int, default=45)
    given = parser.parse_args()
    spec = DataSpec(name=given.data, train_total=given.train, test_per_class=given.test_per_class)
    data = load_dataset(spec, seed=given.seed)
    train, test = (data.groups(split) for split in (data.train, data.test))
    assert train is not None, "the data has no column of languages"
    assert test is not None
    languages = sorted(set(test.tolist()))
    chance = _chance(data.train.labels, data.test.labels, train, test)
    print(f"{len(train)} training and {len(test)} test texts; chance {chance:.3f}\n")
    print(f"| encoder | all | {' | '.join(languages)} | s |\n|{'---|' * (len(languages) + 3)}")
    rights = []
    for name in given.encoders.split(","):
        started = time.perf_counter()
        embedder = Embedder(EncoderSpec(name=name))
        pool = embedder(data.train.texts)
        queries = embedder([text[:QUERY_CHARACTERS] for text in data.test.texts])
        scores = queries @ pool.T
        scores[test[:, None] != train[None, :]] = -np.inf
        right = data.train.labels[scores.argmax(axis=1)] == data.test.labels
        shares = [right[test == language].mean() for language in languages]
        seconds = time.perf_counter() - started
        cells = " | ".join(f"{share:.3f}" for share in shares)
        print(f"| {name} | {right.mean():.3f} | {cells} | {seconds:.0f} |")
        rights.append(right)
    if len(rights) > 1:
        gain = rights[1].astype(float) - rights[0]
        rng = np.random.default_rng(0)
        drawn = rng.choice(gain, (DRAWS, len(gain))).mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(f"\nThe second less the first: {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")


def _chance(
    labels: np.ndarray, true: np.ndarray, languages: np.ndarray, theirs: np.ndarray
) -> float:
    """The share that a training text of the language, drawn at random, has."""
    return float(np.mean([
        (labels[languages == language] == label).mean()
        for label, language in zip(true, theirs, strict=True)
    ]))  # fmt: skip


if __name__ == "__main__":
    main()
