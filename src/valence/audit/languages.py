"""Which script and which language texts are in, and rows that are in another one."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from valence.audit.checks import PLAIN, Finding, LabeledSource, Level

SAMPLE = 20_000  # rows of a split whose language is looked at: about 15 s
SURE = 0.9  # a language below this confidence is not held against a row
LETTERS = 20  # in a text: fewer say too little
USUAL = 0.05  # of the training rows: a language with less is not what the rows are in
MOVED = 0.20  # of the rows of a split: when so much is in other languages or scripts, it is said
OTHER_SCRIPTS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}


@functools.lru_cache(maxsize=65_536)
def script_of(sign: str) -> str | None:
    """The script of a letter by Unicode's name of it; None for all else."""
    if not sign.isalpha():
        return None
    name = unicodedata.name(sign, "").split(" ", 1)[0].split("-", 1)[0]
    return OTHER_SCRIPTS.get(name, name.capitalize()) or None


def main_script(text: str) -> str:
    """The script of most letters of a text; ``"none"`` where there are none."""
    found = Counter(script for sign in text if (script := script_of(sign)))
    return found.most_common(1)[0][0] if found else "none"


def language_reader() -> Callable[[str], tuple[str, float]] | None:
    """A function from a text to (ISO 639 code, confidence); None where the extra is missing."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    reader = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return functools.partial(_language, reader.classify)


def _language(classify: Callable[[str], tuple[str, float]], text: str) -> tuple[str, float]:
    if sum(sign.isalpha() for sign in text) < LETTERS and main_script(text) not in ("Han", "Kana"):
        return "unsure", 0.0
    name, confidence = classify(text)
    return (name, confidence) if confidence >= SURE else ("unsure", confidence)


def find_languages(source: LabeledSource, languages: Sequence[str] = ()) -> Finding:
    """Rows in another script or language than the training rows, and splits that differ.

    Args:
        source: The rows.
        languages: ISO 639 codes the texts should be in; when none, what the source's card
            says, or else what at least 5% of the training rows are surely in.
    """
    rows = pd.concat([source.of(split)[:SAMPLE] for split in source.splits], ignore_index=True)
    rows["script"] = [main_script(text) for text in rows["text"]]
    read = language_reader()
    if read is not None:
        rows["language"], rows["confidence"] = zip(*map(read, rows["text"]), strict=True)
    else:
        rows["language"], rows["confidence"] = "unsure", 0.0
    train = rows[rows["split"] == source.training]
    scripts = _usual(train["script"])
    named = tuple(languages) or source.languages
    usual = set(named) or _usual(train.loc[train["language"] != "unsure", "language"])
    sure = rows["language"] != "unsure"
    foreign = rows[
        (~rows["script"].isin({*scripts, "none"})) | (sure & ~rows["language"].isin(usual))
    ]
    mixes = [source.shown(split) + _mix(rows[rows["split"] == split]) for split in source.splits]
    line = f"{', '.join(mixes)}. "
    line += f"{len(foreign)} rows ({len(foreign) / len(rows):.1%}) are in another script"
    line += " or language." if read is not None else " (languages: pip install 'valence[audit]')."
    moved = [s for s in source.splits if _distance(rows, s, source.training) > MOVED]
    if moved:
        line += f" The languages of {', '.join(moved)} are not those of {source.training}."
    level: Level = "warning" if moved or len(foreign) >= USUAL * len(rows) else "fine"
    shown = ["script", "language", "confidence", *PLAIN]
    return Finding("languages", level, line, len(foreign), foreign[shown].reset_index(drop=True))


def _usual(names: pd.Series) -> set[str]:
    shares = names.value_counts(normalize=True)
    return {str(name) for name in shares.index[shares >= USUAL]}


def _mix(rows: pd.DataFrame) -> str:
    known = rows.loc[rows["language"] != "unsure", "language"]
    column = known if len(known) else rows["script"]
    shares = column.value_counts(normalize=True)[:3]
    return " ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _distance(rows: pd.DataFrame, split: str, other: str) -> float:
    """Half the sum of the differences of the shares of (script, language): 0 alike, 1 apart."""
    sure = rows[(rows["language"] != "unsure") | (rows["confidence"] == 0.0)]
    kinds = sure["script"] + " " + sure["language"]
    one, two = (
        kinds[sure["split"] == name].value_counts(normalize=True) for name in (split, other)
    )
    difference = one.sub(two, fill_value=0.0).to_numpy()
    return float(np.abs(difference).sum() / 2)
