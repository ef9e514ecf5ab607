"""An adapter merged into its base model as one checkpoint, verified: :func:`merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valence.distributed.device import pick_device
from valence.errors import ModelError, RunError
from valence.llm.finetune_spec import FineTuneResult, read_finetune_result
from valence.llm.language_model import LanguageModel
from valence.llm.local import load_tokenizer, load_weights
from valence.llm.resident import free_memory
from valence.models.encoder import without_peft_warnings
from valence.storage import atomic

TOLERANCE = {"cpu": 1e-4, "mps": 1e-3, "cuda": 5e-2}
"""Of a label's probability; on a GPU bfloat16 rounds every merged weight once more."""


@dataclass(frozen=True)
class MergeCheck:
    """How far label probabilities of the merged model are from others.

    Attributes:
        gap: Largest difference to the adapter on the same base in the same format.
        trained_gap: Largest difference to what was trained, whose base may have been quantized;
            None for adapters of older versions, which do not record it.
        trained_format: Number format of that base.
        merged_format: Number format of the merged model.
        changed: Check questions that the merged model answers otherwise than what was trained.
        questions: Check questions in all.
    """

    gap: float
    trained_gap: float | None
    trained_format: str
    merged_format: str
    changed: int
    questions: int

    def lines(self) -> list[str]:
        """What a user should know of it."""
        lines = [f"Label probabilities before and after differ by {self.gap:.1e} at most"]
        if self.trained_gap is not None:
            line = (
                f"From the training ({self.trained_format} weights) to the merged model "
                f"({self.merged_format}) they differ by {self.trained_gap:.1e} at most"
            )
            if self.trained_format != self.merged_format:
                line += f"; {self.changed} of {self.questions} check questions get another label"
            lines.append(line)
        return lines


def merge(adapter: Path, out: Path, *, device: str = "auto") -> MergeCheck:
    """Write the base model with the adapter's changes as a plain checkpoint, verified.

    The merged model is compared with the adapter on the same base, which must agree, and with the
    probabilities that the training recorded: an adapter trained on 4-bit weights has learned to
    make up for their rounding, which the merged model has not.

    Args:
        adapter: Folder that ``finetune`` wrote.
        out: New folder.
        device: Where the check is computed.

    Raises:
        ModelError: if the folder is no adapter, or the merged model answers otherwise than the
            adapter does.
        RunError: if ``out`` is not empty or cannot be written.
    """
    result = read_finetune_result(adapter)
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty; use another --out")
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
        free_memory()
        reloaded = load_weights(str(merged), weight_format=weight_format, device=place)
        after = _label_probs(LanguageModel(reloaded, tokenizer, device=place), result)
        gap = _gap(before, after)
        if not gap <= TOLERANCE[place]:
            raise ModelError(
                f"The merged model predicts different probabilities than the adapter (by "
                f"{gap:.1e}); it was not saved; please report this with finetune.json"
            )
    return _checked(gap, after, result, weight_format)


def _checked(
    gap: float, after: np.ndarray, result: FineTuneResult, weight_format: str
) -> MergeCheck:
    if not result.check_probs:
        return MergeCheck(gap, None, "", weight_format, 0, len(after))
    trained = np.array(result.check_probs)
    changed = int((trained.argmax(axis=1) != after.argmax(axis=1)).sum())
    return MergeCheck(
        gap, _gap(trained, after), result.weight_format, weight_format, changed, len(after)
    )


def _gap(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(before - after).max(initial=0.0))


def _label_probs(model: LanguageModel, result: FineTuneResult) -> np.ndarray:
    """(K, C) probabilities of the labels for the check questions of the adapter."""
    return model.label_probs(result.checks, model.answer_ids(result.checks[0], result.answers))
