"""The operating point: precision and recall at one score threshold, and calibration; see docs/evaluation.md.

A robot runs at one threshold, not at AP. At most 100 detections an image count, none on crowds.
"""

from collections.abc import Mapping

import numpy as np

from armbench_mmdet.evaluation.matches import FOUND, IGNORED, matched
from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.evaluation.result import OperatingPoint, Operation, ReliabilityBin

_IOU = 0.5
_BINS = 10
_CURVE = np.linspace(0.05, 0.95, 19)


def operations(matching: Matching, val_thresholds: Mapping[str, float]) -> dict[str, Operation]:
    """The operation of each class with instances; the threshold that was best on ``val`` is given by class."""
    outcome = matched(matching, matching.crowd, np.array([_IOU]))[0][0]
    result = {}
    for kind, (name, order) in enumerate(zip(matching.classes, matching.orders, strict=True)):
        counted = order[outcome[order] != IGNORED]
        instances = int((~matching.crowd & (matching.truth.kind == kind)).sum())
        if instances:
            own = outcome[counted] == FOUND, matching.found.scores[counted]
            result[name] = _operation(*own, instances, val_thresholds.get(name))
    return result


def _operation(is_found: np.ndarray, scores: np.ndarray, instances: int, val_threshold: float | None) -> Operation:
    """Of detections by falling score, ``(D,) bool`` and ``(D,) float64``."""
    hits = np.concatenate([[0], np.cumsum(is_found)])

    def point(threshold: float) -> OperatingPoint:
        detections = int(np.searchsorted(-scores, -threshold, side='right'))
        found = int(hits[detections])
        return OperatingPoint(
            threshold=float(threshold),
            precision=found / detections if detections else None,
            recall=found / instances,
            f1=2 * found / (detections + instances),
        )

    is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # equal scores pass a threshold together
    f1 = np.where(is_last, 2 * hits[1:] / (np.arange(1, len(scores) + 1) + instances), -1.0)
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    reliability = [
        ReliabilityBin(
            score=float(scores[own].mean()), precision=float(is_found[own].mean()), detections=int(own.sum())
        )
        for own in (bins == number for number in range(_BINS))
        if own.any()
    ]
    error = sum(one.detections * abs(one.score - one.precision) for one in reliability) / max(len(scores), 1)
    return Operation(
        best=point(scores[int(f1.argmax())]) if len(scores) else None,
        of_val=None if val_threshold is None else point(val_threshold),
        curve=[point(threshold) for threshold in _CURVE],
        calibration_error=error if len(scores) else None,
        reliability=reliability,
    )
