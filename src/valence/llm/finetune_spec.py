"""Settings of a fine-tuning, and the result that is saved beside the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valence.errors import ModelError

ABOUT = "finetune.json"
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class FinetuneSpec(BaseModel):
    """How a language model is fine-tuned; the defaults are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    cutoff: Annotated[int, Field(ge=16)] = 1024
    """Tokens of a question with its answer."""
    batch_size: Count = 1
    accumulation: Count = 8
    """Batches of a step, divided among the processes."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_share: Fraction = 0.1
    """Of the steps; then the rate falls as a cosine."""
    epochs: Annotated[float, Field(gt=0)] = 5.0
    max_steps: Count | None = None
    """Ends the training earlier."""
    validation_share: Fraction = 0.1
    """Of the training records, where the instructions have no validation split."""
    validation_rows: Count = 200
    """Most validation questions that are scored after an epoch, of every language and label in
    proportion."""
    lora_rank: Count = 8
    """8 and 16 are the defaults of LLaMA-Factory, which the published training used."""
    lora_alpha: Annotated[float, Field(gt=0)] = 16
    lora_dropout: Fraction = 0.0
    keep: Literal["best", "last"] = "best"
    """Which adapter: of the epoch with the best validation macro-F1, or the last."""
    save_steps: Count = 50
    """Steps between the checkpoints from which an interrupted training is resumed."""
    quantization: Literal["auto", "nf4", "none"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 45

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and "quantisation" in values:
            values = {**values, "quantization": values["quantisation"]}
            del values["quantisation"]
        return values


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
    check_probs: tuple[tuple[float, ...], ...] = ()
    """Probabilities of the labels for them, of the adapter on the base it was trained on."""
    weight_format: str = ""
    """Number format of that base; empty in folders of older versions."""
    validation: dict[str, float | None]
    validation_by_language: dict[str, dict[str, float | None]] = {}
    steps: int
    rows: int
    notes: tuple[str, ...] = ()


def read_finetune_result(folder: Path) -> FineTuneResult:
    """Read ``finetune.json`` in the folder of an adapter.

    Raises:
        ModelError: if the folder holds none.
    """
    try:
        return FineTuneResult.model_validate_json((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise ModelError(
            f"{folder} is not an adapter of valence llm finetune; use the folder of its --out"
        ) from None
