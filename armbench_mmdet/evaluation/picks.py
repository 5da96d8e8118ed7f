"""Scores of picks: what a robot that acts on the surest masks, one after the other, would do; see docs/evaluation.md.

A pick is aimed at the most interior point of its mask, on a grid over the mask's box; where the grid misses the mask,
at the mask's first pixel.
"""

import cv2
import numpy as np

from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.evaluation.result import PickScores
from armbench_mmdet.jit import compiled, map_threads

FIRST = (1, 3, 5)
COVERED = 0.25
GRID = 64


def pick_scores(matching: Matching, class_name: str, score: float = 0.5) -> PickScores | None:
    """The scores of picks of one class; None without instances of it.

    Args:
        matching: Of masks.
        class_name: The class that is picked.
        score: Predictions with at least this score are counted.
    """
    if class_name not in matching.classes:
        return None
    kind, found, truth = matching.classes.index(class_name), matching.found, matching.truth
    is_object = (truth.kind == kind) & ~matching.crowd
    objects = np.bincount(truth.image[is_object], minlength=len(matching.image_ids))
    is_counted = (found.kind == kind) & (found.scores >= score)
    predictions = np.bincount(found.image[is_counted], minlength=len(objects))
    images = np.flatnonzero(objects)
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
    found, truth = matching.runs(matching.found, rows), matching.runs(matching.truth, own)
    shared = matching.common.shared[matching.common.offsets[rows][:, None] + own]
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
    for i in range(0, switches.size, 2):
        start = switches[i]
        while start < switches[i + 1]:
            x = start // height
            end = min(switches[i + 1], (x + 1) * height)
            if (x - left) % pitch == 0:
                first, last = start - x * height - top, end - x * height - top
                column = grid[(x - left) // pitch + 1]
                column[(first + pitch - 1) // pitch + 1 : (last + pitch - 1) // pitch + 1] = 1
            start = end
