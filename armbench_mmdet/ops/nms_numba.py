"""Non-maximum suppression on the CPU, compiled by numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.ops.jit import compiled


@compiled
def kept_boxes(corners: NDArray[np.floating], threshold: np.floating, offset: np.floating) -> NDArray[np.bool_]:
    """Return which boxes survive.

    Args:
        corners: ``(4, N)``, rows x1 y1 x2 y2, boxes best first.
        threshold: Scalar of the same dtype, like the next.
        offset: What to add to a width or height.

    Returns:
        ``(N,) bool``.
    """
    x1, y1, x2, y2 = corners[0], corners[1], corners[2], corners[3]
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    zero = offset - offset
    kept = np.ones(areas.size, np.bool_)
    for i in range(areas.size):
        if not kept[i]:
            continue
        for j in range(i + 1, areas.size):
            width = max(min(x2[i], x2[j]) - max(x1[i], x1[j]) + offset, zero)
            height = max(min(y2[i], y2[j]) - max(y1[i], y1[j]) + offset, zero)
            inner = width * height
            kept[j] &= not inner / (areas[i] + areas[j] - inner) > threshold
    return kept
