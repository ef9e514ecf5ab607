"""Unlabeled rows as models read them: :class:`Examples`. Nothing here needs pandas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from valence.data.features.archive import FeatureView


@dataclass(frozen=True)
class Examples:
    """What a model is given of N rows; a label is not among it.

    Attributes:
        texts: N texts.
        features: Audio and vision of the same rows, where there are some.
        groups: (N,) names of the rows' groups, such as languages, where there are some.
        ids: (N,) names of the rows, where they have some.
    """

    texts: Sequence[str]
    features: FeatureView | None = None
    groups: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)
