"""What is known of encoders that people use: one card each. A new encoder is one card.

Facts are those of the model's own card or paper, looked up in November 2026; what could not be
verified is None, and shown as a dash. Speeds are our own, of the built-in encoders alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from valence.config.sections import BUILT_IN_ENCODER, MULTILINGUAL_ENCODER

_XLM_R = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he "
    "hi hr hu hy id is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om "
    "or pa pl ps pt ro ru sa sd si sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"
)
XLM_R_LANGUAGES = tuple(_XLM_R.split())
"""Those of XLM-R's card on the hub, and of the encoders made from it."""
ENGLISH = ("en",)

FROZEN, TUNED, LONG, CPU = "frozen", "fine-tuning", "long texts", "CPU"
USES = (FROZEN, TUNED, LONG, CPU)
WORKS = ("LoRA", "export", "explain")
ALL_WORKS = frozenset(WORKS)


@dataclass(frozen=True)
class EncoderCard:
    """What is known of an encoder.

    Attributes:
        hub_name: Its name on the Hugging Face hub; empty where it could not be verified.
        millions: Parameters, in millions, with those of the embeddings.
        languages: ISO 639-1 codes of what it was trained on; None where no list was verified.
        reads: Languages in words.
        license: Of the weights; empty where it could not be verified.
        max_tokens: Length limit; None where there is none, or it could not be verified.
        width: Numbers in a vector.
        use: What it is good for: some of ``USES``.
        works: What works with it here beside frozen features: some of ``WORKS``; None where it
            was not tried.
        score: A published score.
        source: Where the facts and the score are from.
        texts_per_second: Tweets scored a second by one CPU core, measured here.
        note: One more thing to know.
    """

    hub_name: str
    millions: float | None
    languages: tuple[str, ...] | None
    reads: str
    license: str
    max_tokens: int | None
    width: int | None
    use: tuple[str, ...]
    works: frozenset[str] | None = None
    score: str = ""
    source: str = ""
    texts_per_second: int | None = None
    note: str = ""

    def reads_language(self, code: str) -> bool | None:
        """Whether it was trained on a language; None where no list of them was verified."""
        return None if self.languages is None else code in self.languages


MODEL2VEC = "MinishLab/model2vec, results/README.md"
E5_REPORT = "Wang et al. 2024, arXiv 2402.05672, and the model's card"
ETTIN = "Weller et al. 2025, arXiv 2507.11412, and the model's card"
MMBERT = "Marone et al. 2025, arXiv 2509.06888, and github.com/JHU-CLSP/mmBERT"

ENCODERS: dict[str, EncoderCard] = {
    "potion-base-8M": EncoderCard(
        "minishlab/potion-base-8M", 8, ENGLISH, "English", "MIT", None, 256, (CPU, FROZEN),
        works=frozenset(), score="MTEB classification 64.4", source=MODEL2VEC,
        note="static: a vector per token, averaged; nothing is fine-tuned",
    ),
    "potion-multilingual-128M": EncoderCard(
        "minishlab/potion-multilingual-128M", 128, None, "multilingual", "MIT", None, 256,
        (CPU, FROZEN), works=frozenset(), source="the model's card",
        note="static: a vector per token, averaged; nothing is fine-tuned",
    ),
    BUILT_IN_ENCODER: EncoderCard(
        "sentence-transformers/all-MiniLM-L6-v2", 22.7, ENGLISH, "English", "Apache-2.0", 512, 384,
        (CPU, FROZEN, TUNED),
        works=ALL_WORKS, score="MTEB classification 62.6", source=MODEL2VEC,
        texts_per_second=161, note="trained on texts of at most 256 tokens",
    ),
    MULTILINGUAL_ENCODER: EncoderCard(
        "intfloat/multilingual-e5-small", 118, XLM_R_LANGUAGES, "about 100", "MIT", 512, 384,
        (CPU, FROZEN, TUNED),
        works=ALL_WORKS, source=E5_REPORT, texts_per_second=69,
        note="reads each text after the prompt 'query: '",
    ),
    "multilingual-e5-base": EncoderCard(
        "intfloat/multilingual-e5-base", 278, XLM_R_LANGUAGES, "about 100", "MIT", 512, 768,
        (FROZEN, TUNED),
        works=ALL_WORKS, source=E5_REPORT,
        note="reads each text after the prompt 'query: '",
    ),
    "bge-small-en-v1.5": EncoderCard(
        "BAAI/bge-small-en-v1.5", 33, ENGLISH, "English", "MIT", 512, 384, (CPU, FROZEN, TUNED),
        works=ALL_WORKS, source="the model's card", note="the vector is that of the first token",
    ),
    "bge-m3": EncoderCard(
        "BAAI/bge-m3", 560, None, "100 and more", "MIT", 8192, 1024, (FROZEN, LONG),
        works=ALL_WORKS, source="the model's card; Chen et al. 2024, arXiv 2402.03216",
        note="the vector is that of the first token",
    ),
    "embeddinggemma-300m": EncoderCard(
        "google/embeddinggemma-300m", 308, None, "100 and more", "Gemma terms", 2048, 768,
        (FROZEN,), source="ai.google.dev/gemma/docs/embeddinggemma",
        note="the terms must be accepted on the hub; has prompts and two layers of its own",
    ),
    "embeddinggemma-2": EncoderCard(
        "google/embeddinggemma-2", 740, None, "100 and more", "Apache-2.0", 8192, 768,
        (FROZEN, LONG), source="huggingface.co/google/embeddinggemma-2",
        note="270 M parameters are those for text, the others for pictures and sound",
    ),
    "deberta-v3-base": EncoderCard(
        "microsoft/deberta-v3-base", 183, ENGLISH, "English", "MIT", 512, 768, (TUNED,),
        works=ALL_WORKS,
        score="ahead of ModernBERT at equal data", source="arXiv 2504.08716, and the model's card",
    ),
    "ModernBERT-base": EncoderCard(
        "answerdotai/ModernBERT-base", 149, ENGLISH, "English", "Apache-2.0", 8192, 768,
        (TUNED, LONG),
        works=ALL_WORKS, score="GLUE 88.4", source=ETTIN, note="poor as frozen features",
    ),
    "ettin-encoder-17m": EncoderCard(
        "jhu-clsp/ettin-encoder-17m", 17, ENGLISH, "English", "MIT", 8192, 256, (CPU, TUNED, LONG),
        works=ALL_WORKS,
        source=ETTIN, note="poor as frozen features",
    ),
    "ettin-encoder-68m": EncoderCard(
        "jhu-clsp/ettin-encoder-68m", 68, ENGLISH, "English", "MIT", 8192, 512, (TUNED, LONG),
        works=ALL_WORKS,
        source=ETTIN, note="poor as frozen features",
    ),
    "ettin-encoder-150m": EncoderCard(
        "jhu-clsp/ettin-encoder-150m", 150, ENGLISH, "English", "MIT", 8192, 768, (TUNED, LONG),
        works=ALL_WORKS,
        score="GLUE 88.9", source=ETTIN, note="poor as frozen features",
    ),
    "ettin-encoder-400m": EncoderCard(
        "jhu-clsp/ettin-encoder-400m", 400, ENGLISH, "English", "MIT", 8192, 1024, (TUNED, LONG),
        works=ALL_WORKS,
        score="GLUE 90.8", source=ETTIN, note="poor as frozen features",
    ),
    "mmBERT-small": EncoderCard(
        "jhu-clsp/mmBERT-small", 140, None, "1,800 and more", "MIT", 8192, 384, (TUNED, LONG),
        works=ALL_WORKS,
        source=MMBERT,
    ),
    "mmBERT-base": EncoderCard(
        "jhu-clsp/mmBERT-base", 307, None, "1,800 and more", "MIT", 8192, 768, (TUNED, LONG),
        works=ALL_WORKS,
        score="XTREME +2.4 over XLM-R", source=MMBERT,
    ),
    "xlm-roberta-base": EncoderCard(
        "FacebookAI/xlm-roberta-base", 278, XLM_R_LANGUAGES, "100", "MIT", 512, 768, (TUNED,),
        works=ALL_WORKS, source="Conneau et al. 2020, ACL, and the model's card",
    ),
    "AfriE5": EncoderCard(
        "", None, None, "African", "", 512, 1024, (FROZEN,),
        score="best open model on AfriMTEB (59 languages)",
        source="Uemura et al. 2026, EACL, arXiv 2510.23896",
        note="name on the hub and license not verified: see github.com/LLMforLRL",
    ),
}  # fmt: skip
