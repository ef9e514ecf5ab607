"""An adapter merged into its base model as one checkpoint, verified: :func:`merge`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from valence.distributed.device import pick_device
from valence.errors import ModelError, RunError
from valence.llm.finetune_spec import FineTuneResult, read_finetune_result
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_tokenizer, load_weights
from valence.models.encoder import without_peft_warnings
from valence.storage import atomic

TOLERANCE = {"cpu": 1e-4, "mps": 1e-3, "cuda": 5e-2}
"""Of a label's probability; on a GPU bfloat16 rounds every merged weight once more."""


def merge(adapter: Path, out: Path, *, device: str = "auto") -> float:
    """Write the base model with the adapter's changes as a plain checkpoint, verified.

    Args:
        adapter: Folder that ``finetune`` wrote.
        out: New folder.
        device: Where the check is computed.

    Returns:
        The largest difference of a label's probability before and after.

    Raises:
        ModelError: if the folder is no adapter, or the merged model answers otherwise.
        RunError: if ``out`` is not empty or cannot be written.
    """
    result = read_finetune_result(adapter)
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty; give another --out")
    place = pick_device(device)
    weight_format = "bf16" if place == "cuda" else "fp32"
    tokenizer = load_tokenizer(str(adapter))
    model = load_weights(str(adapter), weight_format=weight_format, device=place)
    before = _label_probs(LanguageModel(model, tokenizer, device=place), result)
    with atomic.new_folder(out) as merged:
        with without_peft_warnings():
            model.merge_and_unload().save_pretrained(merged)
        tokenizer.save_pretrained(merged)
        del model
        reloaded = load_weights(str(merged), weight_format=weight_format, device=place)
        after = _label_probs(LanguageModel(reloaded, tokenizer, device=place), result)
        gap = float(np.abs(before - after).max(initial=0.0))
        if not gap <= TOLERANCE[place]:
            raise ModelError(
                f"The merged model gives other label probabilities than the adapter (by "
                f"{gap:.1e}); nothing was written; please report this with finetune.json"
            )
    return gap


def _label_probs(model: LanguageModel, result: FineTuneResult) -> np.ndarray:
    """(K, C) probabilities of the labels for the check questions of the adapter."""
    answers = model.answer_ids(result.checks[0], result.answers)
    scores = model.likelihoods(model.encode(result.checks), answers)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return probs
