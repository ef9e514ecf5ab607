"""The pretrained text encoder and its tokenizer: built in, by hub name, or from a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from valence.config.sections import EncoderSpec
from valence.data.batches import Encoded
from valence.data.quiet import quiet_transformers
from valence.errors import ModelError
from valence.models.built_in import encoder_location
from valence.models.encoder_files import resolve_prompt
from valence.models.windows import split_windows


def folder_choices(name: str, prompt: str | None) -> tuple[str, ...]:
    """What an encoder's folder decides where the settings leave it open, for keys of results.

    Args:
        name: The encoder.
        prompt: ``encoder.prompt``.

    Raises:
        ModelError: if a file of the folder is broken.
    """
    text = "" if prompt is not None else resolve_prompt(None, encoder_location(name)).text
    return (f"prompt {text}",) if text else ()


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
        try:
            with quiet_transformers():
                self.backend = AutoTokenizer.from_pretrained(where)
        except (OSError, ValueError) as error:
            raise _unavailable(spec.name, error) from None
        self.max_length = min(spec.max_length, int(self.backend.model_max_length))
        pad_id = self.backend.pad_token_id
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
                f"The prompt {self.prompt!r} takes {self.prompt_tokens} of {self.max_length} "
                "tokens and leaves no room for a text; raise encoder.max_length or "
                "set encoder.prompt"
            )

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
            rows = batch["input_ids"]
            return Encoded(rows, sum(len(ids) >= self.max_length for ids in rows))
        # A truncated text gives several pieces; only the first of each text is used.
        owners = batch["overflow_to_sample_mapping"]
        firsts = [i for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]
        truncated = sum(1 for i in firsts if i + 1 < len(owners) and owners[i + 1] == owners[i])
        return Encoded([batch["input_ids"][i] for i in firsts], truncated)

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the limit; see ``valence.models.windows``.

        Raises:
            ModelError: if the tokenizer does not return the offsets of its tokens.
        """
        if not self.backend.is_fast:
            raise ModelError(
                f"The tokenizer of {self.backend.name_or_path} does not say where its tokens are; "
                "use --long cut, or an encoder with a tokenizer.json"
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

    Raises:
        ModelError: if the weights cannot be loaded or the adapter fits no layer.
    """

    def __init__(self, spec: EncoderSpec, location: str | Path | None = None) -> None:
        super().__init__()
        self.spec = spec
        where = str(location or encoder_location(spec.name))
        try:
            with quiet_transformers():
                model = AutoModel.from_pretrained(where, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise _unavailable(spec.name, error) from None
        self.hidden_size = int(model.config.hidden_size)
        if spec.adaptation in ("lora", "dora"):
            model = _adapt(model, spec)
        elif spec.adaptation == "frozen":
            model.requires_grad_(False)
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

    @property
    def layer_count(self) -> int:
        """Layers of the transformer, without the embeddings."""
        return int(self.model.config.num_hidden_layers)

    def layers(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """States (B, T, H) of every layer, the embeddings first, of token ids (B, T)."""
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        layers: tuple[Tensor, ...] = states.hidden_states
        return layers


@contextmanager
def without_peft_warnings() -> Iterator[None]:
    """Silence one warning: peft uses a deprecated attribute of transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _adapt(model: nn.Module, spec: EncoderSpec) -> Any:
    config = LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=spec.lora_dropout,
        target_modules=list(spec.lora_targets),
        use_dora=spec.adaptation == "dora",
    )
    try:
        with without_peft_warnings():
            return get_peft_model(model, config)
    except ValueError:
        linear = {
            n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)
        }
        raise ModelError(
            f"Encoder {spec.name!r} has no layers named {', '.join(spec.lora_targets)}; "
            f"set encoder.lora_targets to some of: {', '.join(sorted(linear))}"
        ) from None


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


def _unavailable(name: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else "not found"
    return ModelError(
        f"Encoder {name!r} cannot be loaded ({reason}); give a folder with its files, or fetch it "
        f"once with a network: hf download {name}"
    )
