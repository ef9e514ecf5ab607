"""The cost of a run before it starts: calls, tokens, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from valence.data.dataset import Dataset
from valence.data.pretrained import load_companion, network_of_config
from valence.distributed.device import pick_device
from valence.errors import ModelError
from valence.llm.backends import LocalBackend, PromptSettings, ServerBackend, make_client
from valence.llm.classify import all_questions
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_tokenizer

BYTES_PER_TOKEN = 4.0  # of a server's tokenizer, which is not available here
SECONDS_PER_REQUEST = 1.0
OPERATIONS_PER_SECOND = {"cpu": 3e10, "mps": 2e12, "cuda": 5e13}
"""Rough throughput of a usual machine; the time is an order of magnitude."""


@dataclass(frozen=True)
class CostEstimate:
    """The cost of a run.

    Attributes:
        questions: All questions.
        calls: Questions that will go through the model: without duplicates and known answers.
        known: Answers that are cached.
        tokens: Tokens the model reads; of a server an estimate.
        seconds: An estimate.
        exact: Whether the tokens were counted.
    """

    questions: int
    calls: int
    known: int
    tokens: int
    seconds: float
    exact: bool


def estimate_cost(settings: PromptSettings, dataset: Dataset) -> CostEstimate:
    """Estimate the cost of prompting on these rows; no model is loaded, no request sent.

    Raises:
        DataError, ModelError, SpecError, RunError: if something cannot be used.
    """
    builder, questions = all_questions(settings, dataset)
    llm = settings.llm
    if llm.server is not None:
        client = make_client(llm)
        backend = ServerBackend(llm, builder.renderer, client)
        chats = [backend.messages(q) for q in questions]
        unique = {client.key(messages): messages for messages in chats}
        open_ = [messages for key, messages in unique.items() if client.answers.get(key) is None]
        size = sum(len(m["content"].encode()) for messages in open_ for m in messages)
        seconds = len(open_) * SECONDS_PER_REQUEST / llm.concurrency
        if llm.per_minute:
            seconds = max(seconds, 60.0 * len(open_) / llm.per_minute)
        return CostEstimate(len(questions), len(open_), len(unique) - len(open_),
                    round(size / BYTES_PER_TOKEN), seconds, exact=False)  # fmt: skip
    empty = model_shape(llm.model)
    model = LanguageModel(empty, load_tokenizer(llm.model), max_length=llm.max_length)
    local = LocalBackend(llm, builder.renderer, model)
    prompts = {tuple(ids) for ids in local.encode(questions)}
    read = sum(min(len(ids), local.room) for ids in prompts)
    weights = sum(p.numel() for p in empty.parameters())
    rate = OPERATIONS_PER_SECOND[pick_device(settings.device)]
    return CostEstimate(
        len(questions), len(prompts), 0, read, 2.0 * weights * read / rate, exact=True
    )


def model_shape(name: str) -> Any:
    """A causal model on the meta device: its shape, without weights.

    Args:
        name: Hub name, or a folder that holds a model or an adapter of one.

    Raises:
        ModelError: if its configuration cannot be read.
    """
    import json
    from pathlib import Path

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter = Path(name) / "adapter_config.json"
    try:
        if adapter.exists():
            name = str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
        config = load_companion(AutoConfig, name)
        with torch.device("meta"):
            return network_of_config(AutoModelForCausalLM, config)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or ["not found"])[0][:160]
        raise ModelError(
            f"Language model {name!r} cannot be read ({reason}); use a local folder, or download "
            f"it once: hf download {name}"
        ) from None
