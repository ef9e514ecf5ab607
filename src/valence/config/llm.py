"""How a language model is prompted, and fine-tuned: :class:`LlmSpec`, :class:`SftSpec`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from valence.config.sections import Count, Fraction, Positive, Section


class LlmSpec(Section):
    """How a language model is prompted."""

    speed_only: ClassVar[frozenset[str]] = frozenset(
        {"concurrency", "per_minute", "quantization", "precision"}
    )
    """The number format in effect is a part of the run's key of its own."""

    model: str = ""
    """Hub name, local folder, or the name a server knows it by."""
    server: str | None = None
    """Base URL of an OpenAI-compatible server; the model runs here when not given."""
    shots: Literal["zero", "fixed", "retrieved"] = "zero"
    """Demonstrations: none, the same for all texts, or the most similar training texts."""
    per_label: Count = 1
    """Demonstrations of each label."""
    shots_total: Count | None = None
    """Demonstrations in all where they are the same for all texts, of as many labels as there are;
    3 are published. Overrides ``per_label``."""
    pool: Literal["language", "all"] = "language"
    """Whether they are of the text's own language, where rows have one, or of any."""
    pooling: Literal["mean", "cls", "last", "max", "pooler"] = "mean"
    """How ``encoder`` pools texts into the vectors that are compared."""
    template: str = "options"
    """A name of ``TEMPLATES`` or a YAML file."""
    answer: Literal["likelihood", "greedy"] = "likelihood"
    """Score every label, or read what is generated. A server that returns no
    probabilities is read greedily."""
    prior: Literal["none", "content-free"] = "none"
    """``content-free``: divide by the model's answer to a content-free text
    (Zhao et al. 2021, arXiv 2102.09690)."""
    fallback: str | None = None
    """The label of an answer that names none; without it, such an answer counts as wrong."""
    validation: bool = False
    """Whether validation rows are prompted too; nothing is chosen on them."""
    max_new_tokens: Count = 5
    """Tokens of a greedy answer; published for the baselines of Hy-Mora."""
    max_length: Annotated[int, Field(ge=16)] | None = None
    """Tokens of a prompt with its answer; the model's own limit when not given."""
    quantization: Literal["auto", "nf4", "none"] = "auto"
    """``auto``: 4-bit NF4 on a CUDA GPU with bitsandbytes, as published."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of weights that are not quantized; ``auto``: bf16 on a CUDA GPU, fp32 elsewhere."""
    concurrency: Count = 4
    """Concurrent requests to a server."""
    per_minute: Count | None = None
    """Most requests per minute to a server."""

    @field_validator("server")
    @classmethod
    def _no_key(cls, server: str | None) -> str | None:
        if server is not None and "@" in server.partition("://")[2].partition("/")[0]:
            raise ValueError("do not put a password into the URL; set OPENAI_API_KEY")
        return None if server is None else server.rstrip("/")


class SftSpec(Section):
    """How ``llm-finetuned`` trains an adapter; the defaults are the published ones."""

    epochs: Positive = 5.0
    max_steps: Count | None = None
    """Ends the training earlier."""
    cutoff: Annotated[int, Field(ge=16)] = 1024
    """Tokens of a question with its answer."""
    batch_size: Count = 1
    accumulation: Count = 8
    learning_rate: Positive = 1e-4
    lora_rank: Count = 8
    lora_alpha: Positive = 16
    lora_dropout: Fraction = 0.0
    validation_rows: Count = 200
    """Most validation questions that are scored after an epoch, of every language and label in
    proportion."""
