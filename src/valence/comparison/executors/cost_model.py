"""What cells are expected to cost, for the time left; nothing depends on it."""

from __future__ import annotations

from valence.comparison.executors.base import Sizes
from valence.config.spec import RunSpec

# Work of training on a text once, in units of scoring it once (forward, backward, step).
TRAINING_WORK = 3.5
# Training a head on states that are at hand, in units of training the encoder too.
HEAD_WORK = 0.1
# A language model's answer, in the same units: a guess, since models differ by thousands.
ANSWER_WORK = 100.0
# Texts scored a second by the built-in encoder on two cores; replaced by what is measured
# as soon as one cell is done.
FIRST_GUESS_RATE = 200.0


class Clock:
    """Turns work into seconds, by what the finished cells took."""

    def __init__(self) -> None:
        self.work = 0.0
        self.seconds = 0.0

    def left(self, work: float) -> float:
        """Seconds that one worker takes for so much work."""
        rate = self.work / self.seconds if self.seconds > 1 else FIRST_GUESS_RATE
        return work / rate

    def add(self, work: float, seconds: float) -> None:
        """Learn from a finished cell."""
        if work > 0:  # cells that encode nothing say nothing of the encoder's speed
            self.work += work
            self.seconds += seconds


def cost(spec: RunSpec, sizes: Sizes) -> float:
    """Expected work of a run, in texts scored once by its encoder."""
    if spec.method in ("majority", "tfidf-lr") or spec.kind == "posthoc":
        return 0.0
    if spec.kind == "llm":
        return ANSWER_WORK * sizes.test
    train, validation = sizes.train, sizes.validation
    if spec.kind == "sklearn":
        return float(train + validation + sizes.test)
    steps = max(1, train // (spec.train.batch_size * spec.train.accumulation))
    evaluations = spec.train.epochs * (
        steps / spec.train.eval_steps if spec.train.eval_steps else 1
    )
    views = 1 if spec.view.name == "none" else 2
    learned = TRAINING_WORK * spec.train.epochs * train * views
    if spec.encoder.adaptation == "frozen":  # encoded once, then the head alone
        learned = train + HEAD_WORK * learned
    return learned + (evaluations + 1) * validation + sizes.test
