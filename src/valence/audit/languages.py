"""Which script and which language texts are in, and rows that are in another one."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from valence.audit.checks import ROW_COLUMNS, Finding, LabeledSource, Level

SAMPLE = 20_000  # rows of a split whose language is identified: about 15 s
MIN_CONFIDENCE = 0.9  # below it the language of a row is unsure
MIN_LETTERS = 20  # shorter texts are unsure
USUAL_FRACTION = 0.05  # of the training rows: a rarer language is not what the rows are in
SHIFT_FRACTION = 0.20  # of the rows of a split in other languages or scripts: a warning
OTHER_SCRIPTS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}


@functools.lru_cache(maxsize=65_536)
def script_of(sign: str) -> str | None:
    """The script of a letter, by its Unicode name; None for other characters."""
    if not sign.isalpha():
        return None
    name = unicodedata.name(sign, "").split(" ", 1)[0].split("-", 1)[0]
    return OTHER_SCRIPTS.get(name, name.capitalize()) or None


def main_script(text: str) -> str:
    """The script of most letters of a text; ``"none"`` without letters."""
    counts = Counter(script for sign in text if (script := script_of(sign)))
    return counts.most_common(1)[0][0] if counts else "none"


def language_identifier() -> Callable[[str], tuple[str, float]] | None:
    """A function from a text to (ISO 639 code, confidence); None where the extra is missing."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return functools.partial(_language, identifier.classify)


def _language(classify: Callable[[str], tuple[str, float]], text: str) -> tuple[str, float]:
    if sum(sign.isalpha() for sign in text) < MIN_LETTERS and main_script(text) not in (
        "Han",
        "Kana",
    ):
        return "unsure", 0.0
    name, confidence = classify(text)
    return (name, confidence) if confidence >= MIN_CONFIDENCE else ("unsure", confidence)


def find_languages(source: LabeledSource, languages: Sequence[str] = ()) -> Finding:
    """Rows in another script or language than the training rows, and splits that differ.

    Args:
        source: The rows.
        languages: ISO 639 codes the texts should be in; by default those of the source's
            card, or else those of at least 5% of the training rows.
    """
    rows = pd.concat([source.of(split)[:SAMPLE] for split in source.splits], ignore_index=True)
    rows["script"] = [main_script(text) for text in rows["text"]]
    identify = language_identifier()
    if identify is not None:
        rows["language"], rows["confidence"] = zip(*map(identify, rows["text"]), strict=True)
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
    line += (
        " or language." if identify is not None else " (languages: pip install 'valence[audit]')."
    )
    shifted = [s for s in source.splits if _distance(rows, s, source.training) > SHIFT_FRACTION]
    if shifted:
        line += f" The languages of {', '.join(shifted)} differ from those of {source.training}."
    level: Level = "warning" if shifted or len(foreign) >= USUAL_FRACTION * len(rows) else "fine"
    shown = ["script", "language", "confidence", *ROW_COLUMNS]
    return Finding("languages", level, line, len(foreign), foreign[shown].reset_index(drop=True))


def _usual(names: pd.Series) -> set[str]:
    fractions = names.value_counts(normalize=True)
    return {str(name) for name in fractions.index[fractions >= USUAL_FRACTION]}


def _mix(rows: pd.DataFrame) -> str:
    known = rows.loc[rows["language"] != "unsure", "language"]
    column = known if len(known) else rows["script"]
    fractions = column.value_counts(normalize=True)[:3]
    return " ".join(f"{name} {fraction:.0%}" for name, fraction in fractions.items())


def _distance(rows: pd.DataFrame, split: str, other: str) -> float:
    """Total variation distance of two splits' (script, language) fractions, in [0, 1]."""
    sure = rows[(rows["language"] != "unsure") | (rows["confidence"] == 0.0)]
    kinds = sure["script"] + " " + sure["language"]
    one, two = (
        kinds[sure["split"] == name].value_counts(normalize=True) for name in (split, other)
    )
    difference = one.sub(two, fill_value=0.0).to_numpy()
    return float(np.abs(difference).sum() / 2)
