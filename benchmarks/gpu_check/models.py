"""Models of random weights in real shapes, and rows for them; nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_check.checks import Place
from valence.data.dataset import Split, TrainingData
from valence.data.demo import demo_dataset

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
          "intermediate_size": 1536, "max_position_embeddings": 512}  # fmt: skip
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 128,
        "initializer_range": 0.3}  # fmt: skip  # so wide that texts differ in so small a network
QWEN_7B = {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944,
           "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
           "max_position_embeddings": 32_768, "tie_word_embeddings": False}  # fmt: skip
SMALL_CAUSAL = {"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 172,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "max_position_embeddings": 2048, "tie_word_embeddings": False}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Sizes of a run: many rows on a GPU, few in a rehearsal."""

    encoder: dict[str, int]
    train: int
    validation: int
    score: int
    epochs: int


def shape_of(place: Place) -> Shape:
    """Real sizes on a GPU, tiny ones elsewhere."""
    if place.is_gpu:
        return Shape(MINILM, 4096, 64, 16_384, 3)
    return Shape(TINY, 96, 16, 128, 2)


def encoder_folder(place: Place, sizes: dict[str, Any], *, seed: int = 0) -> Path:
    """A BERT of random weights, without dropout, with a tokenizer of the demo's words."""
    import torch
    from transformers import BertConfig, BertModel

    folder = place.scratch / f"encoder-{sizes['hidden_size']}-{seed}"
    if (folder / "config.json").exists():
        return folder
    tokenizer = _word_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    # Without dropout a training draws no random numbers on the device, so that two devices agree.
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        **sizes,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word for text in demo_dataset().train.texts for word in text.lower().split()}
    ids = {word: i for i, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def rows(train: int, validation: int) -> TrainingData:
    """The demo's rows, repeated where more are needed than there are."""
    data = demo_dataset().without_test()
    return replace(
        data, train=_repeated(data.train, train), validation=_repeated(data.validation, validation)
    )


def texts(count: int) -> list[str]:
    """Texts of the demo's test rows, each made different so that no cache helps."""
    split = _repeated(demo_dataset().test, count)
    return [f"{text} {i}" for i, text in enumerate(split.texts)]


def _repeated(split: Split, count: int) -> Split:
    order = np.random.default_rng(0).permutation(len(split))
    order = np.resize(order, count)
    part = split.take(order)
    return replace(part, ids=np.arange(count).astype(str))


def byte_tokenizer() -> Any:
    """Byte pairs of the demo's texts, as language models have them."""
    from transformers import PreTrainedTokenizerFast

    pairs = byte_pairs(demo_dataset().train.texts, size=2000, special=["<|end|>", "<|pad|>"])
    return PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<|end|>", pad_token="<|pad|>")


def byte_pairs(texts: Sequence[str], *, size: int, special: list[str]) -> Any:
    """A tokenizer of byte pairs, learned from texts.

    Args:
        texts: What it is learned from.
        size: Tokens at most.
        special: Tokens of their own; they get the first ids.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def causal_config(sizes: dict[str, Any], **changes: Any) -> Any:
    """The configuration of a Qwen2 model."""
    from transformers import Qwen2Config

    return Qwen2Config(**{**sizes, "eos_token_id": 0, "pad_token_id": 1, **changes})


def causal_folder(place: Place, sizes: dict[str, Any], name: str) -> Path:
    """A causal model of random weights, saved."""
    import torch
    from transformers import Qwen2ForCausalLM

    folder = place.scratch / name
    if not (folder / "config.json").exists():
        byte_tokenizer().save_pretrained(folder)
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(causal_config(sizes, initializer_range=0.1))
        model.save_pretrained(folder)
    return folder
