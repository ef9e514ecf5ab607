"""The pretrained text encoder and its tokenizer: built in, by hub name, or from a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from valence.config.sections import EncoderSpec
from valence.data.batches import Encoded
from valence.errors import ModelError
from valence.models.adapters import linear_layers, lora_targets
from valence.models.backbone import (
    Traits,
    load_backbone,
    load_tokenizer,
    position_count,
    traits_of,
)
from valence.models.built_in import encoder_location
from valence.models.encoder_files import resolve_prompt
from valence.models.loaded_once import loaded_once
from valence.models.static import NOTHING, static_folder
from valence.models.windows import split_windows


class TextTokenizer:
    """The tokenizer of an encoder, with truncation at the length limit and without padding.

    The prompt is put in front of every text, and counts towards the limit.

    Args:
        spec: Names the encoder, the limit and the prompt.
        location: Where the tokenizer files are, if not with the encoder.

    Raises:
        ModelError: if the files cannot be loaded, or the prompt leaves no room for a text.
    """

    def __init__(self, spec: EncoderSpec, location: str | Path | None = None) -> None:
        where = str(location or encoder_location(spec.name))
        self.backend = loaded_once(("tokenizer", where), partial(load_tokenizer, spec.name, where))
        limits = [spec.max_length, int(self.backend.model_max_length), position_count(where)]
        self.max_length = min(limit for limit in limits if limit is not None)
        is_static = static_folder(where) is not None
        # Of static embeddings, what is unknown does not count as a part of the text.
        self.skipped_id = self.backend.unk_token_id if is_static else None
        pad_id = NOTHING if is_static else self.backend.pad_token_id
        self.pad_id = 0 if pad_id is None else int(pad_id)
        prompt = resolve_prompt(spec.prompt, where)
        self.prompt = prompt.text
        self.prompt_note = prompt.note
        self.prompt_tokens = len(self.backend.tokenize(prompt.text)) if prompt.text else 0
        self._check_room()

    def _check_room(self) -> None:
        taken = self.prompt_tokens + self.backend.num_special_tokens_to_add()
        if self.prompt_tokens and taken >= self.max_length:
            raise ModelError(
                f"The prompt {self.prompt!r} uses {self.prompt_tokens} of {self.max_length} tokens "
                "and leaves no room for text; raise encoder.max_length or set encoder.prompt"
            )

    @property
    def prompt_length(self) -> int:
        """Tokens of a text up to the end of the prompt, special ones before it included."""
        if not self.prompt:
            return 0
        ids = self.backend(self.prompt)["input_ids"]
        return len(ids) - (ids[-1] in self.backend.all_special_ids)

    def prompted(self, texts: Sequence[str]) -> list[str]:
        """The texts with the prompt in front of each."""
        return [self.prompt + text for text in texts]

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Token ids of every text, with the number of texts that were truncated."""
        if not texts:
            return Encoded([], 0)
        batch = self.backend(
            self.prompted(texts), padding=False, truncation=True, max_length=self.max_length,
            return_attention_mask=False, return_token_type_ids=False,
            return_overflowing_tokens=self.backend.is_fast,
        )  # fmt: skip
        if not self.backend.is_fast:
            rows = self._readable(batch["input_ids"])
            return Encoded(rows, sum(len(ids) >= self.max_length for ids in rows))
        # A truncated text gives several pieces; only the first of each text is used.
        owners = batch["overflow_to_sample_mapping"]
        firsts = [i for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]
        truncated = sum(1 for i in firsts if i + 1 < len(owners) and owners[i + 1] == owners[i])
        return Encoded(self._readable([batch["input_ids"][i] for i in firsts]), truncated)

    def _readable(self, rows: list[list[int]]) -> list[list[int]]:
        """The ids that are read: without skipped ones, and at least one per text."""
        if self.skipped_id is not None:
            rows = [[i for i in ids if i != self.skipped_id] for ids in rows]
        return [ids or [self.pad_id] for ids in rows]

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the limit; see ``valence.models.windows``.

        Raises:
            ModelError: if the tokenizer does not return the offsets of its tokens.
        """
        if not self.backend.is_fast:
            raise ModelError(
                f"The tokenizer of {self.backend.name_or_path} gives no token positions; use "
                "--long cut, or an encoder with a tokenizer.json"
            )
        return split_windows(
            self.backend.backend_tokenizer, texts, self.max_length, prompt=self.prompt
        )

    def save(self, folder: Path) -> None:
        """Write the tokenizer files into ``folder``."""
        self.backend.save_pretrained(folder)


class Encoder(nn.Module):
    """A pretrained transformer: token ids → token states.

    Args:
        spec: Which encoder, and whether it is frozen, trained whole, or adapted.
        location: Where the weights are, if not where ``spec.name`` says.
        shared: Whether a frozen network may be that of other encoders too; see
            ``valence.models.loaded_once``. False where the network is changed.

    Raises:
        ModelError: if the weights cannot be loaded or the adapter fits no layer.
    """

    def __init__(
        self, spec: EncoderSpec, location: str | Path | None = None, *, shared: bool = True
    ) -> None:
        super().__init__()
        self.spec = spec
        self.where = str(location or encoder_location(spec.name))
        self.pooler_weights: tuple[Tensor, Tensor] | None
        if spec.adaptation == "frozen":
            load = partial(_frozen_network, spec.name, self.where)
            model, self.traits, self.pooler_weights = (
                loaded_once(("network", self.where), load) if shared else load()
            )
        else:
            model, self.traits = _network(spec.name, self.where)
        self.hidden_size = self.traits.width
        if self.traits.static and spec.adaptation != "frozen":
            raise ModelError(
                f"Encoder {spec.name!r} has static embeddings, which cannot be trained; use "
                "--method linear-probe, or set encoder.adaptation=frozen"
            )
        if spec.adaptation in ("lora", "dora"):
            model, self.spec = _adapt(model, spec)
        if spec.adaptation != "frozen":
            self.pooler_weights = _remove_pooler(model)
        self.model = model

    def train(self, mode: bool = True) -> Encoder:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and self.spec.adaptation != "frozen")
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token states (B, T, H) of token ids (B, T)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.spec.adaptation != "frozen"):
            states = self.model(input_ids=input_ids, attention_mask=attention_mask)
        hidden: Tensor = states.last_hidden_state
        return hidden

    @cached_property
    def layer_widths(self) -> tuple[int, ...]:
        """Width of the states of every layer, the embeddings first."""
        ids = torch.zeros(1, 1, dtype=torch.long, device=next(self.parameters()).device)
        with torch.no_grad():
            return tuple(states.shape[2] for states in self.layers(ids, torch.ones_like(ids)))

    def layers(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """States (B, T, H) of every layer, the embeddings first, of token ids (B, T)."""
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        layers: tuple[Tensor, ...] = states.hidden_states
        return layers


@contextmanager
def without_peft_warnings() -> Iterator[None]:
    """Silence two warnings: of a deprecated attribute, and of a setting that peft corrects."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        yield


def _network(name: str, where: str) -> tuple[Any, Traits]:
    """A pretrained network and what it is like."""
    model = load_backbone(name, where)
    traits = traits_of(model, name)
    if traits.causal:
        model.config.use_cache = False  # of keys and values, for texts that are written on
    return model, traits


def _frozen_network(name: str, where: str) -> tuple[Any, Traits, tuple[Tensor, Tensor] | None]:
    """A network that is not trained, without its pooler, and the pooler's weights."""
    model, traits = _network(name, where)
    model.requires_grad_(False)
    return model, traits, _remove_pooler(model)


def _adapt(model: Any, spec: EncoderSpec) -> tuple[Any, EncoderSpec]:
    """The network with adapters, and the spec with the layers that have them."""
    from peft import LoraConfig, get_peft_model  # takes seconds, and few models need it

    targets = spec.lora_targets
    if not targets:
        targets = lora_targets(model, model.config.model_type, encoder=spec.name)
    config = LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=spec.lora_dropout,
        target_modules=list(targets),
        use_dora=spec.adaptation == "dora",
    )
    try:
        with without_peft_warnings():
            adapted = get_peft_model(model, config)
    except ValueError:
        raise ModelError(
            f"Encoder {spec.name!r} has no layers named {', '.join(targets)}; "
            f"set encoder.lora_targets to some of: {', '.join(linear_layers(model))}"
        ) from None
    return adapted, spec.model_copy(update={"lora_targets": tuple(targets)})


def _remove_pooler(model: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Remove the pooler and return its weights, if it is one linear layer as BERT's.

    Heads read token states; a pooler would be computed, saved and counted for nothing.
    """
    weights = None
    for module in model.modules():
        pooler = module._modules.get("pooler")
        if pooler is not None:
            dense = pooler._modules.get("dense")
            if isinstance(dense, nn.Linear):
                weights = (dense.weight.detach().clone(), dense.bias.detach().clone())
            module._modules["pooler"] = None
    return weights
