"""Search spaces that several methods share; those of losses are defined with the losses."""

from __future__ import annotations

from collections.abc import Mapping

from valence.config.ranges import Range
from valence.config.sections import TrainSpec

AROUND = 10.0
"""Learning rates are searched from a tenth of the method's default to ten times it."""

TRAINED: Mapping[str, Range] = {
    "train.weight_decay": Range(0.0, 0.1),
    "head.dropout": Range(0.1, 0.5),
}
"""Ranges of every trained method, besides the learning rate; see :func:`rate_space`."""

RECURRENT: Mapping[str, Range] = {
    "head.hidden_size": Range(choices=(128, 256, 512)),
    "head.layers": Range(1, 3),
    "head.dropout": Range(0.1, 0.5),
    # Published: 1e-6 to 5e-5 for RoBERTa trained whole. Here new layers alone are trained on
    # a frozen encoder, which needs the rates of new layers.
    "train.learning_rate": Range(1e-4, 5e-3, log=True),
    "train.weight_decay": Range(0.0, 0.1),
}
ATTENTION: Mapping[str, Range] = {"head.attention_heads": Range(choices=(2, 4, 8))}
CLASS_WEIGHTS: Mapping[str, Range] = {"loss.class_weights": Range(choices=("none", "balanced"))}
PROBED: Mapping[str, Range] = {
    "head.pooling": Range(choices=("auto", "mean", "max")),
    **CLASS_WEIGHTS,
}


def rate_space(train: TrainSpec) -> dict[str, Range]:
    """Learning rates around a method's default."""
    own = train.learning_rate
    return {"train.learning_rate": Range(own / AROUND, own * AROUND, log=True)}
