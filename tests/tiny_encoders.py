"""Tiny encoders of random weights, a folder per architecture, with a tokenizer made on the fly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.models import byte_pairs
from tests.conftest import WORDS

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = {**SIZES, "intermediate_size": 24, "max_position_embeddings": 40}
EMBEDDED = {**BERT, "embedding_size": 12}
RELATIVE = {**BERT, "relative_attention": True, "pos_att_type": "c2p|p2c"}
ROTARY = {**BERT, "num_key_value_heads": 1, "head_dim": 8}
GEMMA = {**ROTARY, "use_bidirectional_attention": True, "sliding_window": 16}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
DISTILLED = {
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 40,
}


@dataclass(frozen=True)
class Architecture:
    """A row of the table.

    Attributes:
        config: The class of its configuration.
        sizes: Its arguments.
        width: Of its token states.
        causal: Whether a token sees only those before it.
        max_length: Most tokens of a text.
        exports: Whether it can be exported to ONNX.
        nested: Whether the sizes are those of its ``text_config``.
    """

    config: str
    sizes: Mapping[str, Any]
    width: int = 16
    causal: bool = False
    max_length: int = 40
    exports: bool = True
    nested: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture("BertConfig", BERT),
    "roberta": Architecture("RobertaConfig", BERT, max_length=39),
    "xlm-roberta": Architecture("XLMRobertaConfig", BERT, max_length=39),
    "camembert": Architecture("CamembertConfig", BERT, max_length=39),
    "electra": Architecture("ElectraConfig", EMBEDDED),
    "albert": Architecture("AlbertConfig", EMBEDDED),
    "rembert": Architecture("RemBertConfig", {**BERT, "input_embedding_size": 12}),
    "distilbert": Architecture("DistilBertConfig", DISTILLED),
    "mpnet": Architecture("MPNetConfig", BERT, max_length=38),
    "deberta": Architecture("DebertaConfig", RELATIVE),
    "deberta-v2": Architecture("DebertaV2Config", {**RELATIVE, "position_buckets": 8}),
    "modernbert": Architecture("ModernBertConfig", BERT),
    "modernbert-decoder": Architecture("ModernBertDecoderConfig", BERT, causal=True),
    "eurobert": Architecture("EuroBertConfig", ROTARY),
    "nomic_bert": Architecture("NomicBertConfig", BERT),
    "gemma3_text": Architecture("Gemma3TextConfig", GEMMA),
    "embedding_gemma2_text": Architecture("EmbeddingGemma2TextConfig", GEMMA, width=768),
    "llama": Architecture("LlamaConfig", ROTARY, causal=True),
    "qwen2": Architecture("Qwen2Config", ROTARY, causal=True),
    "qwen3": Architecture("Qwen3Config", ROTARY, causal=True),
    "t5": Architecture("T5Config", T5, max_length=128),
    "mt5": Architecture("MT5Config", T5, max_length=128),
    "umt5": Architecture("UMT5Config", T5, max_length=128),
    # From here on in no table of target modules: found by the structure.
    "embedding_gemma2": Architecture("EmbeddingGemma2Config", GEMMA, width=768, nested=True),
    "mistral": Architecture("MistralConfig", ROTARY, causal=True),
    "jina_embeddings_v3": Architecture("JinaEmbeddingsV3Config", BERT),
}


def write_encoder(name: str, folder: Path) -> Path:
    """A tiny encoder of an architecture, as transformers saves it; causal ones with byte pairs."""
    import transformers

    architecture = ARCHITECTURES[name]
    tokenizer = _byte_pairs() if architecture.causal else _words()
    tokenizer.save_pretrained(folder)
    ids = {"pad": 0, "unk": 1, "cls": 2, "bos": 2, "sep": 3, "eos": 3, "mask": 4}
    sizes = {f"{name}_token_id": i for name, i in ids.items()}
    sizes = {**sizes, "vocab_size": len(tokenizer), **architecture.sizes}
    make = getattr(transformers, architecture.config)
    if architecture.nested:
        other = {f"{what}_token_id": ids["mask"] for what in ("image", "video", "audio")}
        config = make(text_config=sizes, **other)
    else:
        config = make(**sizes)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _words() -> Any:
    """A token per word between special ones, without a length limit."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def _byte_pairs() -> Any:
    """Byte pairs without special tokens around a text, as language models have them."""
    from transformers import PreTrainedTokenizerFast

    pairs = byte_pairs([" ".join(WORDS)], size=320, special=["<|pad|>", "<|end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token="<|pad|>", eos_token="<|end|>")
