"""How a language model is fine-tuned, and what is kept of it beside the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valence.errors import ModelError

ABOUT = "finetune.json"
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class FinetuneSpec(BaseModel):
    """How a language model is fine-tuned; where nothing else is said, as published."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    cutoff: Annotated[int, Field(ge=16)] = 1024
    """Tokens of a question with its answer."""
    batch_size: Count = 1
    accumulation: Count = 8
    """Batches of a step; several processes share them out."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_share: Share = 0.1
    """Of the steps; then the rate falls as a cosine."""
    epochs: Annotated[float, Field(gt=0)] = 5.0
    max_steps: Count | None = None
    """Ends the training earlier."""
    validation_share: Share = 0.1
    """Of the training records, where the instructions have no validation split."""
    validation_rows: Count = 200
    """Most validation questions that are scored after an epoch."""
    lora_rank: Count = 8
    """8 and 16 are the defaults of LLaMA-Factory, which the published training used."""
    lora_alpha: Annotated[float, Field(gt=0)] = 16
    lora_dropout: Share = 0.0
    keep: Literal["best", "last"] = "best"
    """Which adapter: of the epoch with the best validation macro-F1, or the last."""
    save_steps: Count = 50
    """Steps between the points from which an interrupted training goes on."""
    quantization: Literal["auto", "nf4", "none"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 45


class FineTuneResult(BaseModel):
    """Contents of ``finetune.json``: what an adapter was trained on, and how well it does."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    spec: FinetuneSpec
    data: str
    template: str
    classes: tuple[str, ...]
    answers: tuple[str, ...]
    checks: tuple[str, ...]
    """Questions as the model reads them."""
    validation: dict[str, float | None]
    steps: int
    rows: int
    notes: tuple[str, ...] = ()


def read_tuned(folder: Path) -> FineTuneResult:
    """What is kept on a fine-tuned model.

    Raises:
        ModelError: if the folder is none.
    """
    try:
        return FineTuneResult.model_validate_json((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise ModelError(
            f"{folder} holds no adapter that valence llm finetune wrote; give its --out"
        ) from None
