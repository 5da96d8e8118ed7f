"""Operating points of a robot that runs at one score threshold, and its picks of the surest masks in turn."""

from collections.abc import Mapping

import cv2
import numpy as np

from armbench_mmdet.evaluation.matches import FOUND, IGNORED, matched
from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.evaluation.result import OperatingPoint, Operation, PickScores, ReliabilityBin
from armbench_mmdet.jit import compiled, map_threads

_IOU = 0.5
_BINS = 10
_CURVE = np.linspace(0.05, 0.95, 19)
FIRST = (1, 3, 5)
COVERED = 0.25
GRID = 64


def operations(matching: Matching, val_thresholds: Mapping[str, float]) -> dict[str, Operation]:
    """The operation of each class with instances; the threshold that was best on ``val`` is given by class."""
    outcome = matched(matching.common, matching.crowd, matching.crowd, np.array([_IOU]))[0][0]
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


def pick_scores(matching: Matching, class_name: str, score: float = 0.5) -> PickScores | None:
    """The scores of picks of one class, by its masks; None without instances of it.

    Predictions with at least this score are counted.
    """
    is_picked, found, truth = np.array(matching.classes) == class_name, matching.found, matching.truth
    is_object = is_picked[truth.kind] & ~matching.crowd
    objects = np.bincount(truth.image[is_object], minlength=len(matching.image_ids))
    is_counted = is_picked[found.kind] & (found.scores >= score)
    predictions = np.bincount(found.image[is_counted], minlength=len(objects))
    images, kind = np.flatnonzero(objects), int(is_picked.argmax())
    if not images.size:
        return None
    wanted = np.minimum(objects[images], FIRST[-1])
    successes = np.array(map_threads(lambda image: _successes(matching, image, kind, is_object), images.tolist()))
    shares = {k: (successes[:, :k] & (np.arange(k) < wanted[:, None])).sum(1) / np.minimum(wanted, k) for k in FIRST}
    return PickScores(
        **{f'success_{k}': float(share.mean()) for k, share in shares.items()},
        count_error=float(abs(predictions - objects).mean()),
        count_score=score,
        images=len(images),
    )


def _successes(matching: Matching, image: int, kind: int, is_object: np.ndarray) -> np.ndarray:
    """``(5,) bool``, whether each of the first picks in an image succeeds."""
    group = image * len(matching.classes) + kind
    rows, own = (np.arange(*each.starts[group : group + 2]) for each in (matching.found, matching.truth))
    rows, height = rows[: FIRST[-1]], matching.sizes[image][0]
    shared = matching.common.shared[matching.common.offsets[rows][:, None] + own]
    is_touched = shared.any(0)
    own, shared = own[is_touched], shared[:, is_touched]
    found, truth = matching.runs(matching.found, rows), matching.runs(matching.truth, own)
    is_covered = (shared > COVERED * truth.areas) & is_object[own]
    is_free, successes = is_object[own], np.zeros(FIRST[-1], bool)
    for d in range(len(rows)):
        switches = found.switches[found.starts[d] : found.starts[d + 1]]
        pixel = _most_interior(switches, height, found.boxes[d]) if found.areas[d] else -1
        for g in np.flatnonzero(is_free & (shared[d] > 0)).tolist():
            under = truth.switches[truth.starts[g] : truth.starts[g + 1]]
            if np.searchsorted(under, pixel, side='right') % 2:
                successes[d] = not np.delete(is_covered[d], g).any()
                is_free[g] &= not successes[d]
                break
    return successes


def _most_interior(switches: np.ndarray, height: int, box: np.ndarray) -> int:
    """The position of the most interior point of a mask that has some pixels."""
    x, y, right, bottom = box.tolist()
    pitch = -(-max(right - x, bottom - y) // GRID)
    grid = np.zeros((-(-(right - x) // pitch) + 2, -(-(bottom - y) // pitch) + 2), np.uint8)
    _fill(switches, height, x, y, pitch, grid)
    place = int(cv2.distanceTransform(grid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).argmax())
    column, row = place // grid.shape[1] - 1, place % grid.shape[1] - 1
    return (column * pitch + x) * height + row * pitch + y if place else int(switches[0])


@compiled
def _fill(switches: np.ndarray, height: int, left: int, top: int, pitch: int, grid: np.ndarray) -> None:
    """Mark the points of a mask on a grid ``(w, h) uint8`` with a border of zeros."""
    passed = 0
    for i in range(grid.shape[0] - 2):
        for j in range(grid.shape[1] - 2):
            while passed < switches.size and switches[passed] <= (left + i * pitch) * height + top + j * pitch:
                passed += 1
            grid[i + 1, j + 1] = passed % 2
