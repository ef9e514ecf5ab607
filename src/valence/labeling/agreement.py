"""Agreement of several people on the rows they share: Krippendorff's alpha."""

from __future__ import annotations

import numpy as np


def krippendorff_alpha(labels: np.ndarray) -> float | None:
    """Alpha of nominal labels; 1 is perfect agreement, 0 that of chance.

    Krippendorff (2011), Computing Krippendorff's Alpha-Reliability.

    Args:
        labels: (P, N) class ids of P people on N rows; −1 where a person gave none.

    Returns:
        None where no row has labels of two people, or all labels are of one class.
    """
    if not labels.size or labels.max() < 0:
        return None
    counts = np.stack([(labels == c).sum(axis=0) for c in range(int(labels.max()) + 1)], axis=1)
    counts = counts[counts.sum(axis=1) >= 2].astype(float)
    if not len(counts):
        return None
    per_row = counts.sum(axis=1)
    coincidence = np.einsum("nc,nd->cd", counts / (per_row - 1)[:, None], counts)
    coincidence -= np.diag((counts / (per_row - 1)[:, None]).sum(axis=0))
    totals = coincidence.sum(axis=1)
    whole = totals.sum()
    expected = (whole**2 - (totals**2).sum()) / (whole * (whole - 1))
    if expected <= 0:
        return None
    observed = (whole - np.trace(coincidence)) / whole
    return float(1 - observed / expected)
