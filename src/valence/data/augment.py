"""Second views of training texts: made once, seeded, and kept in the cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence.config.sections import ViewSpec
from valence.data.batches import length_batches
from valence.data.collate import pad
from valence.data.pretrained import load_companion, load_network
from valence.errors import DataError, UnknownNameError
from valence.storage import cache

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) texts."""

FILE = "views.parquet"
TOP_K = 10  # substitutes are sampled from this many of the language model's likeliest words
TOKEN_BUDGET = 2048
# Scripts written without spaces are edited by character.
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")


@dataclass(frozen=True)
class Texts:
    """What second views are made from.

    Attributes:
        texts: N training texts.
        extra: Further columns of the data, N rows or none.
        encoder: Where the encoder's files are.
        max_length: Tokens at which a text is truncated.
        seed: Of everything random.
        content: Hash of the encoder's files.
    """

    texts: Sequence[str]
    extra: pd.DataFrame
    encoder: str
    max_length: int
    seed: int
    content: str = ""


def second_views(
    view: ViewSpec, source: Texts, progress: ProgressCallback | None = None
) -> tuple[list[str], str]:
    """A second view of every text, and a note on how they were made.

    Views are cached by texts and settings.

    Args:
        view: Which kind; ``auto`` takes the best one available.
        source: The texts and their encoder.
        progress: Called with (done, total) texts.

    Raises:
        UnknownNameError: if there is no such kind.
        DataError: if the column is missing, or the encoder has no language model.
    """
    name = _pick(view, source) if view.name == "auto" else view.name
    if name not in VIEWS:
        raise UnknownNameError("view", name, ["auto", "none", *VIEWS])
    note = f"second views: {name}"
    if name in ("column", "dropout"):
        return VIEWS[name](view, source, progress), note
    about = {"view": name, "texts": len(source.texts), "share": view.share, "seed": source.seed}
    model = f"{source.encoder} {source.content}" if name == "substitution" else ""
    parts = [name, str(view.share), str(source.seed), str(source.max_length), model]
    key = cache.content_key([*parts, *source.texts])
    stored = cache.load(cache.VIEWS, key, _read)
    if stored is not None:
        return stored, f"{note} (from the cache)"
    views = VIEWS[name](view, source, progress)
    with cache.writing(cache.VIEWS, key, about) as folder:
        pd.DataFrame({"text": views}).to_parquet(folder / FILE, index=False)
    return views, note


def _read(folder: Path) -> list[str]:
    return list(pd.read_parquet(folder / FILE)["text"])


def _pick(view: ViewSpec, source: Texts) -> str:
    if view.column in source.extra:
        return "column"
    return "substitution" if has_language_model(source.encoder) else "edits"


def has_language_model(encoder: str) -> bool:
    """Whether the files of an encoder hold a masked language model's output layer."""
    from transformers import AutoConfig

    try:
        names = load_companion(AutoConfig, encoder).architectures or []
    except (OSError, ValueError):  # whoever loads the encoder says what is wrong with it
        return False
    return any(name.endswith("ForMaskedLM") for name in names)


def _column(view: ViewSpec, source: Texts, progress: ProgressCallback | None) -> list[str]:
    """The texts of a column; where a cell is empty, the text itself."""
    if view.column not in source.extra:
        columns = ", ".join(source.extra.columns) or "no further columns"
        raise DataError(
            f"The training rows have no column {view.column!r} of second views (columns: "
            f"{columns}); set view.column, or view.name=edits"
        )
    cells = source.extra[view.column].fillna("").astype(str).tolist()
    return [cell.strip() or text for cell, text in zip(cells, source.texts, strict=True)]


def _same(view: ViewSpec, source: Texts, progress: ProgressCallback | None) -> list[str]:
    """The texts as they are: dropout alone makes the difference."""
    return list(source.texts)


def _edits(view: ViewSpec, source: Texts, progress: ProgressCallback | None) -> list[str]:
    """Words deleted, swapped and repeated, a third of ``share`` each (Wei & Zou 2019, EDA)."""
    rng = np.random.default_rng(source.seed)
    made = []
    for number, text in enumerate(source.texts):
        made.append(edit_words(text, view.share, rng))
        if progress is not None and number % 1000 == 999:
            progress(number + 1, len(source.texts))
    return made


def edit_words(text: str, share: float, rng: np.random.Generator) -> str:
    """A text with about ``share`` of its words edited, at least one of two or more.

    Args:
        text: Any text; where its script has no spaces, characters stand for words.
        share: Fraction of the words.
        rng: Random number generator.
    """
    joint = "" if UNSPACED.search(text) else " "
    words = list(text) if joint == "" else text.split()
    if len(words) < 2:
        return text
    for kind in rng.integers(0, 3, size=max(1, round(share * len(words)))):
        place, other = (int(i) for i in rng.integers(0, len(words), size=2))
        if kind == 0 and len(words) > 2:
            words.pop(place)
        elif kind == 1:
            words[place], words[other] = words[other], words[place]
        else:
            words.insert(place, words[other])
    return joint.join(words)


def _substitution(view: ViewSpec, source: Texts, progress: ProgressCallback | None) -> list[str]:
    """Words replaced by what the encoder's own masked language model expects in their place."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    if not has_language_model(source.encoder):
        raise DataError(
            f"Encoder {source.encoder!r} has no masked language model, which word substitution "
            "needs; set view.name=edits, dropout or column"
        )
    tokenizer = load_companion(AutoTokenizer, source.encoder)
    model = load_network(AutoModelForMaskedLM, source.encoder).eval()
    words, continues = (torch.from_numpy(kind) for kind in word_tokens(tokenizer))
    generator = torch.Generator().manual_seed(source.seed)
    encoded = tokenizer(
        list(source.texts), truncation=True, max_length=source.max_length, padding=False,
        return_attention_mask=False, return_token_type_ids=False,
    )["input_ids"]  # fmt: skip
    made = [""] * len(encoded)
    done = 0
    for rows in length_batches([len(ids) for ids in encoded], token_budget=TOKEN_BUDGET):
        batch = pad([encoded[i] for i in rows], tokenizer.pad_token_id or 0)
        ids = batch["input_ids"]
        whole = words[ids] & ~continues[torch.roll(ids, -1, dims=1)]
        chosen = _places(whole, view.share, generator)
        masked = ids.masked_fill(chosen, tokenizer.mask_token_id)
        with torch.inference_mode():
            logits = model(input_ids=masked, attention_mask=batch["attention_mask"]).logits[chosen]
        ids[chosen] = _substitutes(logits, ids[chosen], words, generator)
        new = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for row, text in zip(rows, new, strict=True):
            made[row] = text.strip() or source.texts[row]
        done += len(rows)
        if progress is not None:
            progress(done, len(encoded))
    return made


def word_tokens(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """(V,) True where a token begins a word of letters, and (V,) where it continues one."""
    vocabulary = tokenizer.get_vocab()
    marks = ("Ġ", "▁")  # of byte-pair and unigram tokenizers, before a word
    marked = any(token.startswith(marks) for token in vocabulary)
    special = set(tokenizer.all_special_tokens)
    begins, continues = np.zeros((2, max(vocabulary.values()) + 1), dtype=bool)
    for token, i in vocabulary.items():
        if token not in special:
            first = token.startswith(marks) if marked else not token.startswith("##")
            letters = token.lstrip("Ġ▁#").isalpha()
            begins[i], continues[i] = first and letters, letters and not first
    return begins, continues


def _places(whole: Any, share: float, generator: Any) -> Any:
    """(B, T) True at a fraction ``share`` of the positions where ``whole`` is, at least one."""
    import torch

    keys = torch.rand(whole.shape, generator=generator).masked_fill(~whole, 2.0)
    count = (whole.sum(1) * share).round().clamp(min=1)
    return (keys.argsort(dim=1).argsort(dim=1) < count[:, None]) & whole


def _substitutes(logits: Any, originals: Any, words: Any, generator: Any) -> Any:
    """Token ids (K,) sampled from the likeliest other words; logits (K, V), originals (K,)."""
    import torch

    allowed = logits[:, : len(words)].masked_fill(~words, -torch.inf)
    allowed = allowed.scatter(1, originals[:, None], -torch.inf)
    values, tokens = allowed.topk(min(TOP_K, allowed.shape[1]), dim=1)
    picks = torch.multinomial(values.softmax(dim=1), 1, generator=generator)
    return tokens.gather(1, picks).squeeze(1)


VIEWS: dict[str, Callable[[ViewSpec, Texts, ProgressCallback | None], list[str]]] = {
    "column": _column,
    "substitution": _substitution,
    "edits": _edits,
    "dropout": _same,
}
