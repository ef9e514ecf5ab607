"""Fixtures all tests share: no network, real data where it is at hand, a tiny encoder."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pandas as pd
import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of the person who runs the tests is not touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALENCE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = Path(os.environ.get("VALENCE_GOLDEN", ROOT / "../shared/golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden files at {folder}; set VALENCE_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("VALENCE_DATA", ROOT / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real corpora at {folder}; set VALENCE_DATA")
    return folder


WORDS = [
    "the",
    "a",
    "film",
    "plot",
    "food",
    "room",
    "staff",
    "was",
    "is",
    "not",
    "very",
    "really",
    "good",
    "bad",
    "great",
    "awful",
    "fine",
    "dull",
    "loved",
    "hated",
    "slow",
    "but",
    "and",
    "never",
    "quite",
    "boring",
    "lovely",
    "terrible",
    "perfect",
    "cold",
    "warm",
    "i",
    "we",
    "it",
]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer BERT of random weights with a word tokenizer, as a local folder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def make_reviews(rows: int, seed: int = 0) -> pd.DataFrame:
    """Short reviews in the tiny encoder's words, three classes, long-tailed."""
    draw = random.Random(seed)
    tone = {"good": ["good", "great", "lovely"], "bad": ["bad", "awful", "terrible"]}
    tone["meh"] = ["fine", "dull", "slow"]
    records = []
    for i in range(rows):
        label = ("good", "good", "good", "good", "bad", "bad", "meh")[i % 7]
        words = [*draw.sample(WORDS, draw.randint(2, 9)), draw.choice(tone[label])]
        draw.shuffle(words)
        records.append({"text": f"{' '.join(words)}", "label": label, "number": i})
    return pd.DataFrame(records)


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    make_reviews(140).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def tiny_settings(tiny_encoder: Path) -> dict[str, object]:
    """Settings under which a training takes a second."""
    return {
        "encoder.name": str(tiny_encoder),
        "train.epochs": 2,
        "train.batch_size": 16,
        "train.learning_rate": 5e-3,
        "loss.memory_warmup_steps": 1,
        "loss.min_samples": 1,
    }
