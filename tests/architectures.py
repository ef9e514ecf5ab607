"""Tiny encoders and classifiers of random weights, of every architecture that tests name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import WORDS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # so that texts differ as they do in a trained encoder
}
IDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {}, "ernie": {}, "megatron-bert": {}, "roberta": IDS, "xlm-roberta": IDS,
    "camembert": IDS, "data2vec-text": IDS, "mpnet": IDS, "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 16}, "deberta": {}, "deberta-v2": {},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "modernbert": {**IDS, "global_attn_every_n_layers": 2, "local_attention": 16},
    "eurobert": {**IDS, "num_key_value_heads": 4, "mask_token_id": 4},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "xlm-roberta-xl": IDS, "nomic_bert": {}, "gte": {},
    "qwen3": {**IDS, "num_key_value_heads": 2, "head_dim": 8},
}  # fmt: skip


def config_of(kind: str, **settings: Any) -> Any:
    """A small config of transformers."""
    from transformers import AutoConfig

    given = {**SIZES, **CONFIGS[kind], **settings}
    if kind == "distilbert":
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            given.pop(name)
        given.pop("intermediate_size")
    return AutoConfig.for_model(kind, **given)


def save_word_tokenizer(folder: Path, **settings: Any) -> None:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    given = {f"{name}_token": value for name, value in names.items()}
    given = {**given, "model_max_length": 60, **settings}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given).save_pretrained(folder)


def save_encoder(kind: str, folder: Path) -> Path:
    """An encoder of random weights with a word tokenizer."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(config_of(kind)).save_pretrained(folder)
    save_word_tokenizer(folder)
    return folder


def save_classifier(kind: str, folder: Path, **settings: Any) -> Path:
    """A ``*ForSequenceClassification`` of random weights, as another tool trained it."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    labels = ("negative", "neutral", "positive")
    given = {
        "id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)},
        **settings,
    }  # fmt: skip
    network = AutoModelForSequenceClassification.from_config(config_of(kind, **given))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "classifier" in name or "score" in name:
                parameter.normal_(std=0.5)
    network.save_pretrained(folder)
    save_word_tokenizer(folder)
    return folder
