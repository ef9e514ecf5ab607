"""How well an encoder can read a corpus, group by group, before any training: :func:`readiness`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valence.config.sections import EncoderSpec
from valence.data.dataset import Dataset
from valence.errors import ModelError
from valence.models.encoder import TextTokenizer
from valence.storage import atomic

MAX_TEXTS = 2000
"""Training texts of a group whose tokens are counted; more change little."""
UNKNOWN_LIMIT = 0.05
"""Fraction of unknown tokens of a script above which its texts lose their meaning."""
LETTERS_PER_TOKEN_LIMIT = 1.6
"""Letters per token of a script below which an encoder knows its letters, not its words."""
LONG_LIMIT = 0.2
"""Fraction of texts over the length limit that is worth a warning."""
FEW_ROWS = 50
"""Rows of a class below which its scores vary widely."""
SCRIPT_FRACTION = 0.05
"""Fraction of a group's letters above which a script is checked."""
CHARACTER_SCRIPTS = ("CJK", "HANGUL")
"""Scripts in which one character carries meaning."""
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI")
"""Scripts without spaces: every CJK character counts as a word, of the others every run."""
TITLES = {"CJK": "Han", "ETHIOPIC": "Ge'ez"}


@dataclass(frozen=True)
class Readiness:
    """How well the encoder reads one group of rows.

    Attributes:
        group: Its name; ``all`` where the corpus has no groups.
        train, validation, test: Rows.
        smallest: The class of the corpus with the fewest training rows.
        smallest_rows: How many.
        tail_rows: Training rows of the tail classes.
        tokens: Median tokens per text.
        tokens_per_word: Han characters count as words.
        unknown: Fraction of tokens that are unknown to the encoder.
        over_limit: Fraction of texts longer than the length limit.
        scripts: Fraction of the letters by script, the largest first.
        warnings: Problems to expect, one line each.
    """

    group: str
    train: int
    validation: int
    test: int
    smallest: str
    smallest_rows: int
    tail_rows: int
    tokens: float
    tokens_per_word: float
    unknown: float
    over_limit: float
    scripts: dict[str, float]
    warnings: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return asdict(self)


@dataclass(frozen=True)
class _Tokens:
    """Counts over the texts of a group; by-script ones are in the order of ``scripts``."""

    lengths: np.ndarray
    words: int
    scripts: list[str]
    letters: np.ndarray
    tokens: np.ndarray
    unknown: np.ndarray
    all_unknown: int
    all_tokens: int


def readiness(data: Dataset, encoder: EncoderSpec) -> list[Readiness]:
    """One entry per group of the rows, the whole corpus as one where there are none.

    Args:
        data: The corpus.
        encoder: The encoder whose tokenizer and length limit are checked.

    Raises:
        ModelError: if the tokenizer cannot be loaded or gives no offsets.
    """
    tokenizer = TextTokenizer(encoder)
    if not tokenizer.backend.is_fast:
        raise ModelError(
            f"Encoder {encoder.name!r} has a slow tokenizer, which gives no "
            "offsets; save it with a fast one (tokenizer.json)"
        )
    names = sorted({*_names(data), *_names(data, "test")}) if data.group else ["all"]
    return [_of_group(data, tokenizer, name) for name in names]


def _names(data: Dataset, split: str = "train") -> Iterator[str]:
    names = data.groups(getattr(data, split))
    yield from [] if names is None else names.tolist()


def _of_group(data: Dataset, tokenizer: TextTokenizer, name: str) -> Readiness:
    own = {}
    for split in ("train", "validation", "test"):
        rows = getattr(data, split)
        values = data.groups(rows)
        own[split] = rows if values is None else rows.take(np.flatnonzero(values == name))
    texts = (own["train"].texts or own["test"].texts)[:MAX_TEXTS]
    counts = own["train"].counts(len(data.classes))
    tokens = _count(tokenizer, texts)
    over = float((tokens.lengths > tokenizer.max_length).mean()) if texts else 0.0
    letters = tokens.letters / max(1, tokens.letters.sum())
    order = np.argsort(-letters, kind="stable")
    return Readiness(
        group=name,
        train=len(own["train"]), validation=len(own["validation"]), test=len(own["test"]),
        smallest=data.classes[int(counts.argmin())], smallest_rows=int(counts.min()),
        tail_rows=int(counts[list(data.tail)].sum()),
        tokens=float(np.median(tokens.lengths)) if texts else 0.0,
        tokens_per_word=tokens.all_tokens / max(1, tokens.words),
        unknown=tokens.all_unknown / max(1, tokens.all_tokens),
        over_limit=over,
        scripts={_title(tokens.scripts[i]): round(float(letters[i]), 4) for i in order},
        warnings=tuple(_warnings(data, tokens, letters, counts, over, tokenizer.max_length)),
    )  # fmt: skip


def _warnings(
    data: Dataset, tokens: _Tokens, letters: np.ndarray, counts: np.ndarray, over: float,
    limit: int,
) -> Iterator[str]:  # fmt: skip
    for i in np.argsort(-letters, kind="stable"):
        if letters[i] < SCRIPT_FRACTION or not tokens.tokens[i]:
            continue
        unknown = tokens.unknown[i] / tokens.tokens[i]
        known = max(1, tokens.tokens[i] - tokens.unknown[i])
        per_token = tokens.letters[i] / max(known, tokens.tokens[i])
        script = tokens.scripts[i]
        if unknown > UNKNOWN_LIMIT:
            yield (
                f"the encoder cannot read {_title(script)}: {unknown:.0%} of its tokens are "
                "unknown; use --encoder multilingual-e5-small"
            )
        elif per_token < LETTERS_PER_TOKEN_LIMIT and script not in CHARACTER_SCRIPTS:
            yield (
                f"the encoder splits {_title(script)} into letters, not words ({per_token:.1f} "
                "letters per token); use --encoder multilingual-e5-small"
            )
    few = [f"{data.classes[c]} {n}" for c, n in enumerate(counts) if n < FEW_ROWS]
    if few:
        yield f"fewer than {FEW_ROWS} training rows: {', '.join(few)}"
    if over > LONG_LIMIT:
        yield f"{over:.0%} of the texts are longer than {limit} tokens and are truncated"


def _count(tokenizer: TextTokenizer, texts: Sequence[str]) -> _Tokens:
    """Tokens by the script of the letter they start at, over all texts at once."""
    if not texts:
        none = np.zeros(0, dtype=np.int64)
        return _Tokens(none, 0, [], none, none, none, 0, 0)
    batch = tokenizer.backend(
        list(texts), padding=False, truncation=False, add_special_tokens=False,
        return_attention_mask=False, return_token_type_ids=False, return_offsets_mapping=True,
        verbose=False,
    )  # fmt: skip
    lengths = np.array([len(ids) for ids in batch["input_ids"]])
    added = tokenizer.backend.num_special_tokens_to_add() + tokenizer.prompt_tokens
    ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in batch["input_ids"]])
    places = np.concatenate([np.asarray(row).reshape(-1, 2) for row in batch["offset_mapping"]])
    sizes = np.array([len(text) + 1 for text in texts])  # with what joins them
    starts = np.repeat(np.cumsum(sizes) - sizes, lengths) + places[:, 0].astype(np.int64)
    codes = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    scripts, owner = _scripts(codes)
    of_token = owner[np.minimum(starts, len(owner) - 1)]
    unknown = ids == (tokenizer.backend.unk_token_id if tokenizer.backend.unk_token else -1)
    lettered = of_token >= 0
    size = len(scripts)
    return _Tokens(
        lengths + added, _words(codes, owner, scripts), scripts,
        np.bincount(owner[owner >= 0], minlength=size),
        np.bincount(of_token[lettered], minlength=size),
        np.bincount(of_token[lettered & unknown], minlength=size),
        int(unknown.sum()), len(ids),
    )  # fmt: skip


def _scripts(codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the scripts, and (L,) the script of every character; −1 for what is no letter."""
    distinct, place = np.unique(codes, return_inverse=True)
    names = [_script(int(code)) for code in distinct]
    scripts = sorted({name for name in names if name})
    numbers = np.array([scripts.index(name) if name else -1 for name in names], dtype=np.int64)
    return scripts, numbers[place]


def _script(code: int) -> str:
    """First word of a letter's Unicode name, which is its script; "" for other characters."""
    if 0xD800 <= code <= 0xDFFF:
        return ""
    letter = chr(code)
    if unicodedata.category(letter) not in ("Ll", "Lu", "Lo", "Lt"):
        return ""
    return unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]


def _words(codes: np.ndarray, owner: np.ndarray, scripts: Sequence[str]) -> int:
    """Runs of letters and digits; Han characters one by one, a script without spaces by runs."""
    separate = np.array([name in UNSPACED for name in scripts] + [False])
    single = np.array([name == "CJK" for name in scripts] + [False])
    digit = (codes >= 48) & (codes <= 57)
    # Marks (vowel signs, accents) belong to the word around them, apostrophes too.
    marks = {c for c in np.unique(codes).tolist() if not 0xD800 <= c <= 0xDFFF
             and unicodedata.category(chr(c)) in ("Mn", "Mc")}  # fmt: skip
    inside = (owner >= 0) | digit | np.isin(codes, [*marks, ord("'"), ord("’")])
    before = np.concatenate([[False], inside[:-1]])
    changed = np.concatenate([[False], owner[1:] != owner[:-1]])
    apart = separate[owner] | np.concatenate([[False], separate[owner[:-1]]])
    begins = inside & (~before | (changed & apart) | single[owner])
    return int(begins.sum())


def _title(script: str) -> str:
    return TITLES.get(script, script.capitalize())


def write_readiness(entries: Sequence[Readiness], path: Path) -> None:
    """Write the entries as a CSV, one row per group, scripts and warnings as text.

    Raises:
        RunError: if the file cannot be written.
    """
    import pandas as pd

    rows = []
    for entry in entries:
        text = {"scripts": script_mix(entry), "warnings": "; ".join(entry.warnings)}
        rows.append({**entry.record(), **text})
    with atomic.new_file(path) as scratch:
        pd.DataFrame(rows).to_csv(scratch, index=False)


def script_mix(entry: Readiness, least: float = 0.005) -> str:
    """``Latin 97%, Arabic 3%``; scripts of a smaller fraction are left out."""
    return ", ".join(f"{name} {share:.0%}" for name, share in entry.scripts.items()
                     if share >= least)  # fmt: skip
