"""How much work the steps of a training are, for its progress and the time left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from valence.config.callbacks import ProgressCallback
from valence.config.sections import TrainSpec
from valence.config.spec import MethodConfig
from valence.methods.base import Method, Sizes

if TYPE_CHECKING:
    from valence.data.dataset import Split

# Work of training on a text once, in units of scoring it once (forward, backward, step).
TRAINING_WORK = 3.5
# Training a head on cached states, in units of training the encoder too.
HEAD_WORK = 0.1


def encoding_part(
    method: Method[Any], config: MethodConfig, train: Split, validation: Split
) -> float:
    """Fraction of a fit that a frozen encoder takes before the rest is trained; 0 if it is not."""
    if config.get("encoder.adaptation") != "frozen":
        return 0.0
    rows = len(train) + len(validation)
    return min(1.0, rows / max(1.0, method.cost(config, Sizes(len(train), len(validation), 0))))


def encoding_progress(progress: ProgressCallback | None) -> Callable[[int, int], None]:
    """Counts of encoded texts as a fraction and a message."""

    def on_texts(done: int, total: int) -> None:
        if progress is not None:
            progress(done / max(1, total), f"encoding {done} of {total} texts")

    return on_texts


def evaluation_work(train: TrainSpec, sizes: Sizes) -> float:
    """Work of scoring the validation rows at every evaluation, and of the test rows once."""
    steps = max(1, sizes.train // (train.batch_size * train.accumulation))
    evaluations = train.epochs * (steps / train.eval_steps if train.eval_steps else 1)
    return (evaluations + 1) * sizes.validation + sizes.test
