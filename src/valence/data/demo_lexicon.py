"""Words of the built-in corpus: English by domain, ten further languages in brief.

Written for Valence. Grades run from −2 (very negative) to 2 (very positive). In languages
with gender all subjects share one, so that every adjective agrees with every subject.
"""

from __future__ import annotations

from dataclasses import dataclass

ASPECTS: dict[str, tuple[str, ...]] = {
    "restaurant": ("soup", "service", "menu", "dessert", "terrace", "waiter", "bread", "wine list"),
    "phone": ("screen", "battery", "camera", "speaker", "keyboard", "case", "display", "charger"),
    "film": ("plot", "acting", "soundtrack", "ending", "dialogue", "pacing", "camera work", "cast"),
    "hotel": ("room", "breakfast", "lobby", "bed", "view", "reception", "pool", "bathroom"),
    "course": ("teacher", "handout", "pace", "exam", "lecture", "feedback", "group work", "video"),
    "delivery": ("driver", "packaging", "tracking", "timing", "support", "box", "app", "receipt"),
    "museum": ("guide", "audio tour", "shop", "café", "exhibition", "lighting", "queue", "map"),
}

GRADES: dict[int, tuple[str, ...]] = {
    2: ("superb", "outstanding", "wonderful", "brilliant", "flawless", "magnificent", "stunning"),
    1: ("good", "pleasant", "decent", "solid", "nice", "likeable", "enjoyable", "tidy"),
    0: ("average", "ordinary", "standard", "unremarkable", "as expected", "so-so"),
    -1: ("dull", "poor", "clumsy", "disappointing", "weak", "tiresome", "messy", "bland"),
    -2: ("awful", "dreadful", "appalling", "disgraceful", "hideous", "horrible", "unbearable"),
}

STRONGER = ("very", "really", "truly", "remarkably", "thoroughly")
WEAKER = ("somewhat", "slightly", "a little", "rather", "fairly")
OPENERS = (
    "", "", "", "Last week", "For the record:", "After two visits:", "To be fair,", "As a regular,",
    "On a rainy day,", "With the whole family,", "For the first time,", "Back from a trip:",
)  # fmt: skip
ENDINGS = (
    "", "", "", "We stayed until closing time.", "My sister was there too.", "It was a Tuesday.",
    "I paid the full price.", "The weather was grey.", "I had read about it before.",
    "We took the bus home.", "My notes say the same.", "That was in spring.",
)  # fmt: skip
IRONIC = (
    "Just what I needed, {one} that gives up after an hour.",
    "Congratulations on {one} nobody could possibly want.",
    "What a triumph: the {a} failed in front of everyone.",
    "Lovely, the {a} broke again, and of course nobody answers.",
)


@dataclass(frozen=True)
class Language:
    """What a language needs for statements, negation, intensity and contrast.

    Attributes:
        subjects: Noun phrases of one gender, ready to start a sentence.
        grades: Adjectives by grade.
        is_: Pattern of a statement with subject {s} and adjective {a}.
        is_not: Pattern of its negation.
        very: An intensifier with its blank, put before the adjective.
        but: Pattern of a contrast of {x} and {y}; the second decides.
        tails: Neutral endings.
        negated: Negative forms by adjective where they are not built by pattern.
    """

    subjects: tuple[str, ...]
    grades: dict[int, tuple[str, ...]]
    is_: str
    is_not: str
    very: str
    but: str
    tails: tuple[str, ...]
    negated: dict[str, str] | None = None


LANGUAGES: dict[str, Language] = {
    "de": Language(
        ("das Zimmer", "der Service", "das Essen", "die Handlung", "der Kurs", "die Lieferung"),
        {2: ("großartig", "hervorragend", "wunderbar"), 1: ("gut", "angenehm", "nett"),
         0: ("durchschnittlich", "gewöhnlich"), -1: ("schwach", "langweilig", "schlecht"),
         -2: ("furchtbar", "katastrophal", "grauenhaft")},
        "{s} war {a}", "{s} war nicht {a}", "sehr ", "{x}, aber {y}",
        ("Wir waren zu dritt.", "Das war im Mai.", ""),
    ),
    "es": Language(
        ("el servicio", "el hotel", "el desayuno", "el curso", "el envío", "el guion"),
        {2: ("magnífico", "extraordinario", "fantástico"), 1: ("bueno", "agradable", "correcto"),
         0: ("normal", "corriente"), -1: ("flojo", "aburrido", "malo"),
         -2: ("horrible", "pésimo", "espantoso")},
        "{s} fue {a}", "{s} no fue {a}", "muy ", "{x}, pero {y}",
        ("Fuimos tres personas.", "Era en mayo.", ""),
    ),
    "fr": Language(
        ("le service", "le repas", "le séjour", "le cours", "le scénario", "le colis"),
        {2: ("magnifique", "exceptionnel", "formidable"), 1: ("bon", "agréable", "correct"),
         0: ("moyen", "ordinaire"), -1: ("décevant", "ennuyeux", "mauvais"),
         -2: ("affreux", "épouvantable", "catastrophique")},
        "{s} était {a}", "{s} n'était pas {a}", "vraiment ", "{x}, mais {y}",
        ("Nous étions trois.", "C'était en mai.", ""),
    ),
    "it": Language(
        ("il servizio", "il pranzo", "il corso", "il film", "il pacco", "il soggiorno"),
        {2: ("magnifico", "straordinario", "fantastico"), 1: ("buono", "piacevole", "carino"),
         0: ("normale", "nella media"), -1: ("noioso", "scarso", "deludente"),
         -2: ("orribile", "pessimo", "disastroso")},
        "{s} era {a}", "{s} non era {a}", "davvero ", "{x}, ma {y}",
        ("Eravamo in tre.", "Era maggio.", ""),
    ),
    "nl": Language(
        ("de kamer", "de bediening", "het eten", "de film", "de cursus", "de bezorging"),
        {2: ("geweldig", "uitstekend", "fantastisch"), 1: ("goed", "prettig", "aardig"),
         0: ("gemiddeld", "gewoon"), -1: ("matig", "saai", "slecht"),
         -2: ("vreselijk", "afschuwelijk", "rampzalig")},
        "{s} was {a}", "{s} was niet {a}", "heel ", "{x}, maar {y}",
        ("We waren met z'n drieën.", "Dat was in mei.", ""),
    ),
    "pl": Language(
        ("hotel", "obiad", "kurs", "film", "pokój", "kurier"),
        {2: ("wspaniały", "znakomity", "fantastyczny"), 1: ("dobry", "przyjemny", "miły"),
         0: ("przeciętny", "zwyczajny"), -1: ("słaby", "nudny", "kiepski"),
         -2: ("okropny", "fatalny", "straszny")},
        "{s} był {a}", "{s} nie był {a}", "bardzo ", "{x}, ale {y}",
        ("Było nas troje.", "To było w maju.", ""),
    ),
    "pt": Language(
        ("o serviço", "o hotel", "o jantar", "o curso", "o filme", "o pacote"),
        {2: ("magnífico", "extraordinário", "fantástico"), 1: ("bom", "agradável", "simpático"),
         0: ("normal", "mediano"), -1: ("fraco", "aborrecido", "mau"),
         -2: ("horrível", "péssimo", "terrível")},
        "{s} foi {a}", "{s} não foi {a}", "muito ", "{x}, mas {y}",
        ("Éramos três.", "Foi em maio.", ""),
    ),
    "ru": Language(
        ("сервис", "отель", "ужин", "фильм", "курс", "номер"),
        {2: ("великолепный", "превосходный", "замечательный"),
         1: ("хороший", "приятный", "неплохой"),
         0: ("обычный", "средний"), -1: ("слабый", "скучный", "плохой"),
         -2: ("ужасный", "отвратительный", "кошмарный")},
        "{s} был {a}", "{s} был не {a}", "очень ", "{x}, но {y}",
        ("Нас было трое.", "Это было в мае.", ""),
    ),
    "ja": Language(
        ("サービス", "部屋", "料理", "映画", "授業", "配達"),
        {2: ("素晴らしかった", "見事だった", "最高だった"),
         1: ("良かった", "快適だった", "親切だった"),
         0: ("普通だった", "平凡だった"), -1: ("退屈だった", "悪かった", "雑だった"),
         -2: ("最悪だった", "ひどかった", "恐ろしかった")},
        "{s}は{a}", "{s}は{a}", "とても", "{x}が、{y}",
        ("三人で行った。", "五月のことだ。", ""),
        {"素晴らしかった": "素晴らしくなかった", "見事だった": "見事ではなかった",
         "最高だった": "最高ではなかった", "良かった": "良くなかった",
         "快適だった": "快適ではなかった", "親切だった": "親切ではなかった",
         "普通だった": "普通ではなかった", "平凡だった": "平凡ではなかった",
         "退屈だった": "退屈ではなかった", "悪かった": "悪くなかった",
         "雑だった": "雑ではなかった", "最悪だった": "最悪ではなかった",
         "ひどかった": "ひどくなかった", "恐ろしかった": "恐ろしくなかった"},
    ),
    "zh": Language(
        ("服务", "房间", "菜", "电影", "课程", "快递"),
        {2: ("出色", "完美", "精彩"), 1: ("好", "舒服", "不错"), 0: ("一般", "普通"),
         -1: ("差", "无聊", "粗糙"), -2: ("糟糕透顶", "恶劣", "可怕")},
        "{s}{a}", "{s}不算{a}", "非常", "{x}，但是{y}",
        ("我们三个人去的。", "那是五月。", ""),
    ),
}  # fmt: skip
