"""Texts that occur more than once: word for word, or nearly.

Near duplicates are found by MinHash (Broder 1997) of the letter n-grams, put into bands so
that only texts which share a band are compared (Leskovec, Rajaraman & Ullman, "Mining of
Massive Datasets", ch. 3); the reported similarity is the exact Jaccard similarity of the n-grams.
Time and memory grow with the length of all texts together, not with the number of pairs.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

NGRAM_LETTERS = 5  # shorter n-grams are shared by texts that have nothing in common
HASHES = 64
BANDS = 16  # of 4 hashes: a pair of similarity 0.8 shares one with probability 0.9998
BLOCK = 20_000  # texts hashed at once, to bound memory
PAIRS = 50_000  # compared at once
SMALL_BUCKET = 12  # texts; in a larger one each is compared with a few, not with all


def normalize_text(text: str) -> str:
    """The form of a text by which duplicates are recognized.

    Unicode's compatible form, without case and invisible characters, blanks as one space.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        folded = "".join(" " if _is_invisible(sign) else sign for sign in folded)
    return " ".join(folded.split())


def letters_only(text: str) -> str:
    """A normalized text without addresses, @mentions, punctuation and pictures."""
    words = (w for w in text.split() if w[0] != "@" and "://" not in w and w[:4] != "www.")
    spaced = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " "
                   for c in " ".join(words))  # fmt: skip
    return " ".join(spaced.split())


@functools.lru_cache(maxsize=4096)
def _is_invisible(sign: str) -> bool:
    return unicodedata.category(sign) == "Cf"


def near_pairs(texts: Sequence[str], *, threshold: float = 0.8) -> pd.DataFrame:
    """Pairs of texts whose letter n-grams have at least a Jaccard similarity of ``threshold``.

    In a large group of similar texts every member is paired with some others, not with all.
    A text without letters is similar to no other.

    Args:
        texts: N normalized texts.
        threshold: In (0, 1].

    Returns:
        Columns ``first`` < ``second`` (places in ``texts``) and ``similarity``.
    """
    plain = [letters_only(text) for text in texts]
    candidates: list[np.ndarray] = []
    signatures = []
    for start in range(0, len(plain), BLOCK):
        grams, starts = _ngrams(plain[start : start + BLOCK])
        signatures.append(_minhash(grams, starts))
    marks = np.concatenate(signatures) if signatures else np.zeros((0, HASHES), dtype=np.uint64)
    real = np.array([bool(text) for text in plain], dtype=bool)
    for band in np.split(marks, BANDS, axis=1):
        candidates.append(_bucket_pairs(band, real))
    pairs = np.unique(np.concatenate(candidates), axis=0) if len(marks) else np.zeros((0, 2), int)
    similarity = _jaccard(plain, pairs)
    near = similarity >= threshold
    return pd.DataFrame(
        {"first": pairs[near, 0], "second": pairs[near, 1], "similarity": similarity[near]}
    )


def _ngrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of all texts, one after the other, and where each text begins.

    A text gets n - 1 blanks at its end, so that the shortest has an n-gram too.
    """
    blanks = " " * (NGRAM_LETTERS - 1)
    codes = [np.frombuffer(f"{t} {blanks}".encode("utf-32-le"), dtype="<u4") for t in texts]
    lengths = np.array([len(code) for code in codes])
    joined = np.concatenate(codes).astype(np.uint64)
    windows = len(joined) - NGRAM_LETTERS + 1
    hashes = np.zeros(windows, dtype=np.uint64)
    for offset in range(NGRAM_LETTERS):
        hashes = hashes * np.uint64(0x100000001B3) + joined[offset : offset + windows]
    hashes ^= hashes >> np.uint64(29)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(32)
    ends = np.cumsum(lengths)
    inside = np.ones(windows, dtype=bool)
    for back in range(1, NGRAM_LETTERS):  # windows that reach into the next text
        places = ends - back
        inside[places[places < windows]] = False
    owned = lengths - NGRAM_LETTERS + 1
    return hashes[inside], np.cumsum(owned) - owned


def _minhash(grams: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(N, HASHES) least value of every hash function over the n-grams of each text."""
    rng = np.random.default_rng(7)
    factors = rng.integers(1, 2**63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    minima = np.empty((len(starts), HASHES), dtype=np.uint64)
    for i, factor in enumerate(factors):
        mixed = grams * factor
        mixed ^= mixed >> np.uint64(31)
        minima[:, i] = np.minimum.reduceat(mixed, starts)
    return minima


def _bucket_pairs(band: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of texts with the same values in a band (N, k)."""
    rows = np.flatnonzero(real)
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in band[rows].T:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + column
    order = np.argsort(mixed, kind="stable")
    rows, mixed = rows[order], mixed[order]
    new = np.concatenate([[True], mixed[1:] != mixed[:-1]]) if len(mixed) else np.zeros(0, bool)
    bucket = np.cumsum(new) - 1
    firsts = np.flatnonzero(new)
    rank = np.arange(len(rows)) - firsts[bucket] if len(rows) else np.zeros(0, int)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for back in range(1, SMALL_BUCKET):  # with the texts just before, and with the first
        has = np.flatnonzero(rank >= back)
        pairs.append(np.stack([rows[has - back], rows[has]], axis=1))
    far = np.flatnonzero(rank >= SMALL_BUCKET)
    pairs.append(np.stack([rows[firsts[bucket[far]]], rows[far]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1)


def _jaccard(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """(P,) Jaccard similarity of the n-gram sets of pairs (P, 2)."""
    if not len(pairs):
        return np.zeros(0)
    used, places = np.unique(pairs, return_inverse=True)
    grams, starts = _ngrams([texts[i] for i in used])
    owner = np.repeat(np.arange(len(used)), np.diff(np.append(starts, len(grams))))
    unique, columns = np.unique(grams, return_inverse=True)
    sets = sparse.csr_matrix(
        (np.ones(len(grams), dtype=np.float32), (owner, columns)), (len(used), len(unique))
    )
    sets.data[:] = 1.0  # an n-gram that occurs twice counts once
    sizes = np.asarray(sets.sum(axis=1)).ravel()
    left, right = places.reshape(pairs.shape).T
    similarity = np.empty(len(pairs))
    for start in range(0, len(pairs), PAIRS):
        part = slice(start, start + PAIRS)
        shared = np.asarray(sets[left[part]].multiply(sets[right[part]]).sum(axis=1)).ravel()
        similarity[part] = shared / (sizes[left[part]] + sizes[right[part]] - shared)
    return similarity
