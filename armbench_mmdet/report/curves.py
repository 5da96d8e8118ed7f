"""Precision–recall curves from match tables, the ones that average precision is the mean of."""

from __future__ import annotations

import numpy as np

from armbench_mmdet.evaluation.matches import FOUND, MISSED, ClassMatches
from armbench_mmdet.evaluation.protocol import RECALL_THRESHOLDS


def precision_at_recall(matches: ClassMatches) -> np.ndarray:
    """COCO's interpolated precision: the best at each recall point or above it, 0 beyond the last recall reached.

    Args:
        matches: One class's matches.

    Returns:
        ``(T, 101)`` float64, one curve for each IoU threshold, at ``RECALL_THRESHOLDS``; NaN without instances.
    """
    curves = np.full((len(matches.outcome), len(RECALL_THRESHOLDS)), np.nan)
    instances = int(matches.instances.sum())
    if not instances:
        return curves
    for curve, outcome in zip(curves, matches.outcome, strict=True):
        hits, misses = np.cumsum(outcome == FOUND), np.cumsum(outcome == MISSED)
        precision = hits / np.maximum(hits + misses, 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        first = np.searchsorted(hits / instances, RECALL_THRESHOLDS, side='left')
        reached = first < len(outcome)
        curve[:] = 0
        curve[reached] = best_from_here[first[reached]]
    return curves
