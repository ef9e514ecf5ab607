"""Which columns of a table hold the texts and the labels, where nobody says: guessed, and why.

The texts are the longest, the labels are few. Names count first, in a dozen languages. Numbers,
dates, constant columns and short ones that differ in every row (ids) are neither. Where two columns
are alike, that is an error which names them. Nothing here needs pandas.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from valence.errors import DataError

SAMPLE = 2000
"""Rows that are looked at."""
MOST_LABELS = 50
LONGEST_LABEL = 60
MOST_NUMBERS = 20
"""Distinct numbers above which a column is a measure, and no label."""
LONGEST_NAME, WORDS_OF_A_NAME = 60, 6
"""What is longer names no column."""
ALIKE = 0.6
"""Mean lengths of two columns of texts within this ratio are alike."""

_TEXT_NAMES = (
    "text texts sentence review reviews content tweet comment comments body message post "
    "utterance feedback document description answer opinion kommentar bewertungstext "
    "rezension nachricht beitrag inhalt satz meinung texte commentaire avis phrase contenu "
    "texto comentario comentarios comentário opinión opinião reseña mensaje frase testo "
    "commento recensione opinione tekst komentarz opinia recenzja wiadomość zin opmerking "
    "recensie bericht текст отзыв комментарий сообщение коментар відгук 文本 评论 内容 "
    "文章 句子 評論 テキスト レビュー コメント 本文 文 리뷰 텍스트 댓글 내용 نص تعليق "
    "مراجعة metin yorum maandishi maoni टिप्पणी"
)
TEXT_NAMES = frozenset(_TEXT_NAMES.split())
_LABEL_NAMES = (
    "label labels sentiment category class target polarity emotion rating ratings stars "
    "star score bewertung stimmung klasse kategorie sterne gefühl note étiquette etiquette "
    "classe catégorie sentimento étoiles etiqueta sentimiento clase categoría calificación "
    "estrellas valoración avaliação nota etichetta valutazione stelle categoria ocena "
    "etykieta sentyment klasa beoordeling sterren categorie оценка метка тональность класс "
    "рейтинг оцінка 标签 标注 情感 类别 评分 標籤 ラベル 感情 評価 星 레이블 라벨 감정 "
    "평점 تصنيف تقييم مشاعر etiket duygu puan hisia लेबल"
)
LABEL_NAMES = frozenset(_LABEL_NAMES.split())
NEVER_LABELS = frozenset({"language", "lang", "split", "id", "date", "user", "author", "source"})

_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?%?")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?|\d{1,2}:\d{2}.*"
)
_WORD = re.compile(r"[^\W_]+")


def is_sentence(name: str) -> bool:
    """Whether the name of a column is rather a text, of a file without such a line."""
    return len(name) > LONGEST_NAME or len(name.split()) > WORDS_OF_A_NAME


def is_row(columns: Mapping[str, Sequence[object]], *, text: str, label: str = "") -> bool:
    """Whether the names of columns are rather the first row, of a file without such a line.

    Args:
        columns: Values by column.
        text: The column taken for the texts.
        label: The column taken for the labels, if it is known; its name may be a number then.
    """
    named = {label} if label else {name for name in columns if not _NUMBER.fullmatch(name)}
    values = {name: {str(value) for value in columns[name][:SAMPLE]} for name in named - {text}}
    # A column "verified" that says "verified" or nothing is no label.
    return is_sentence(text) or any(
        name in own and len(own - {"", "None"}) > 1 for name, own in values.items()
    )


@dataclass(frozen=True)
class ColumnChoice:
    """A column, and why it was taken.

    Attributes:
        name: Of the column.
        reason: In a few words, for people.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class _Profile:
    """What the sampled values of a column are like.

    Attributes:
        name: Of the column.
        filled: Values that are not empty.
        distinct: How many differ.
        length: Mean characters.
        numbers, dates: Fractions of the values.
        spaced: Fraction of values of several words, or in letters that use no spaces.
    """

    name: str
    filled: int
    distinct: int
    length: float
    numbers: float
    dates: float
    spaced: float

    @property
    def is_prose(self) -> bool:
        """Whether it may hold texts: no numbers, dates, codes or constants."""
        is_code = self.distinct == self.filled and self.spaced < 0.2 and self.length < 40
        plain = self.numbers < 0.5 and self.dates < 0.5
        return plain and self.distinct > 1 and not is_code

    @property
    def is_labels(self) -> bool:
        """Whether it may hold classes: few values, each several times."""
        most = MOST_NUMBERS if self.numbers > 0.9 else MOST_LABELS
        few = 1 < self.distinct <= min(most, max(2, self.filled // 2))
        return few and self.length <= LONGEST_LABEL and self.dates < 0.5


def guess_text_column(columns: Mapping[str, Sequence[object]], *, where: str) -> ColumnChoice:
    """The column of texts.

    Args:
        columns: Values by column; the first ``SAMPLE`` of each are looked at.
        where: Name of the source, for messages.

    Raises:
        DataError: if no column can hold texts, or several are alike.
    """
    profiles = [p for p in _profiles(columns) if p.is_prose]
    named = _named(profiles, TEXT_NAMES)
    candidates = sorted(named or profiles, key=lambda profile: -profile.length)
    if not any(columns):
        raise DataError(
            f"{where}: the first line names no columns; put one such as text,label above"
        )
    if not candidates:
        raise DataError(
            f"{where}: which column holds the texts? Columns: {', '.join(list(columns)[:20])}. "
            "Set it with --text-column"
        )
    first, *others = candidates
    alike = [p for p in others if p.length >= ALIKE * first.length and _varies(p, first)]
    if alike:
        raise _alike(where, [p for p in profiles if p in (first, *alike)], "texts", "text")
    if named:
        return ColumnChoice(first.name, "by its name")
    return ColumnChoice(first.name, f"the longest texts, {first.length:.0f} characters on average")


def guess_label_column(
    columns: Mapping[str, Sequence[object]], *, text: str, where: str
) -> ColumnChoice:
    """The column of labels.

    Args:
        columns: Values by column; the first ``SAMPLE`` of each are looked at.
        text: The column of texts, which it is not.
        where: Name of the source, for messages.

    Raises:
        DataError: if no column can hold labels, or several are alike.
    """
    profiles = [p for p in _profiles(columns) if p.is_labels and p.name != text]
    candidates = _named(profiles, LABEL_NAMES)
    by_name = bool(candidates)
    if not by_name:
        candidates = [p for p in profiles if not _words(p.name) & NEVER_LABELS]
    if not candidates:
        raise DataError(
            f"{where}: which column holds the labels? None has few values that repeat. Columns: "
            f"{', '.join(list(columns)[:20])}. Set it with --label-column"
        )
    if len(candidates) > 1:
        raise _alike(where, candidates, "labels", "label")
    (only,) = candidates
    reason = "by its name" if by_name else f"the only column with few values ({only.distinct})"
    return ColumnChoice(only.name, reason)


def _alike(where: str, profiles: Sequence[_Profile], what: str, option: str) -> DataError:
    """The error on columns that are alike, in the order of the table."""
    names = " and ".join(repr(p.name) for p in profiles[:4])
    return DataError(
        f"{where}: which column holds the {what}? Columns {names} look alike. "
        f"Try --{option}-column {shlex.quote(profiles[0].name)}"
    )


def _varies(profile: _Profile, first: _Profile) -> bool:
    """Whether it differs from row to row about as much as the first candidate."""
    return profile.distinct >= ALIKE * first.distinct


def _named(profiles: Sequence[_Profile], names: frozenset[str]) -> list[_Profile]:
    """Those with such a name; those that are called just so come before longer names."""
    whole = [p for p in profiles if _plain(p.name) in names]
    return whole or [p for p in profiles if _words(p.name) & names]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _words(name: str) -> set[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # reviewText
    return set(_WORD.findall(_plain(spaced)))


def _profiles(columns: Mapping[str, Sequence[object]]) -> list[_Profile]:
    return [_profile(name, values[:SAMPLE]) for name, values in columns.items()]


def _profile(name: str, values: Sequence[object]) -> _Profile:
    texts = [text for value in values if value is not None and (text := str(value).strip())]
    texts = [text for text in texts if text.lower() not in ("nan", "none", "<na>", "nat")]
    size = max(1, len(texts))

    def fraction(holds: Callable[[str], object]) -> float:
        return sum(1 for text in texts if holds(text)) / size

    return _Profile(
        name, len(texts), len(set(texts)), sum(map(len, texts)) / size,
        fraction(_NUMBER.fullmatch), fraction(_DATE.fullmatch), fraction(_is_spaced),
    )  # fmt: skip


def _is_spaced(text: str) -> bool:
    """Whether it has several words, or letters of a script that puts none between them."""
    return " " in text or any("\u0e00" <= c <= "\u0eff" or "\u3040" <= c <= "\u9fff" for c in text)
