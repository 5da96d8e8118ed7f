"""Scores of picks: what a robot that acts on the surest masks, one after the other, would do; see docs/evaluation.md.

A pick is aimed at the most interior point of its mask, on a grid over the mask's box; where the grid misses the mask,
at the mask's first pixel.
"""

import numpy as np

from armbench_mmdet.evaluation.protocol import Matching, parts_of, ranges
from armbench_mmdet.evaluation.result import PickScores
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.masks.runs import Runs

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
    if not objects.any():
        return None
    successes = _successes(matching, kind, is_object, np.minimum(objects, FIRST[-1]))[objects > 0]
    wanted = objects[objects > 0]
    shares = {k: (successes[:, :k] & (np.arange(k) < wanted[:, None])).sum(1) / np.minimum(wanted, k) for k in FIRST}
    return PickScores(
        **{f'success_{k}': float(share.mean()) for k, share in shares.items()},
        count_error=float(abs(predictions - objects).mean()),
        count_score=score,
        images=len(wanted),
    )


def _successes(matching: Matching, kind: int, is_object: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """``(I, 5) bool``, whether each of the first picks succeeds; so many are made in each image at most."""
    groups = np.arange(len(picks)) * len(matching.classes) + kind
    common, successes = matching.common, np.zeros((len(picks), FIRST[-1]), bool)
    found, truth = matching.found.starts[groups], matching.truth.starts[groups]
    picks = np.minimum(picks, matching.found.starts[groups + 1] - found)
    objects = np.where(picks, matching.truth.starts[groups + 1] - truth, 0)
    heights = np.array([height for height, _ in matching.sizes], np.int64)

    def fill(images: list[int]) -> None:
        own = slice(*images)
        rows, instances = ranges(found[own], picks[own]), ranges(truth[own], objects[own])
        before = np.cumsum(objects[own]) - objects[own]
        _pick(
            matching.runs(matching.found, rows),
            heights[matching.found.image[rows]],
            matching.runs(matching.truth, instances),
            is_object[instances],
            picks[own],
            objects[own],
            common.offsets[rows] + np.repeat(truth[own] - before, picks[own]),
            common.values,
            successes[own],
        )

    map_threads(fill, parts_of(np.concatenate([[0], np.cumsum(picks + objects)])))
    return successes


@compiled
def _pick(
    found: Runs,
    heights: np.ndarray,
    truth: Runs,
    is_object: np.ndarray,
    picks: np.ndarray,
    objects: np.ndarray,
    offsets: np.ndarray,
    common: np.ndarray,
    successes: np.ndarray,
) -> None:
    """Write which picks succeed, image after image."""
    is_free, d, first = is_object.copy(), 0, 0
    for image in range(picks.size):
        last = first + objects[image]
        for number in range(picks[image]):
            own = found.switches[found.starts[d] : found.starts[d + 1]]
            pixel = _most_interior(own, heights[d], found.boxes[d]) if found.areas[d] else -1
            target, covers = -1, 0
            for g in range(first, last):
                under = truth.switches[truth.starts[g] : truth.starts[g + 1]]
                is_on = np.searchsorted(under, pixel, side='right') % 2 == 1
                if target < 0 and is_free[g] and is_on:
                    target = g
                elif is_object[g] and common[offsets[d] + g] > COVERED * truth.areas[g]:
                    covers += 1
            if target >= 0 and not covers:
                successes[image, number], is_free[target] = True, False
            d += 1
        first = last


@compiled
def _most_interior(switches: np.ndarray, height: int, box: np.ndarray) -> int:
    """The position of the most interior point of a mask that has some pixels."""
    pitch = (max(box[2] - box[0], box[3] - box[1]) + GRID - 1) // GRID
    inside = np.zeros(((box[2] - box[0] - 1) // pitch + 3, (box[3] - box[1] - 1) // pitch + 3), np.bool_)
    for i in range(0, switches.size, 2):
        start = switches[i]
        while start < switches[i + 1]:
            x = start // height
            end = min(switches[i + 1], (x + 1) * height)
            if (x - box[0]) % pitch == 0:
                first, last = start - x * height - box[1], end - x * height - box[1]
                column = inside[(x - box[0]) // pitch + 1]
                column[(first + pitch - 1) // pitch + 1 : (last + pitch - 1) // pitch + 1] = True
            start = end
    place = farthest(inside)
    x, y = place // inside.shape[1] - 1, place % inside.shape[1] - 1
    return (x * pitch + box[0]) * height + y * pitch + box[1] if place else switches[0]


@compiled
def farthest(inside: np.ndarray) -> int:
    """The place of the point farthest from those outside in ``(w, h) bool`` with a border of False; 0 without any."""
    width, height = inside.shape
    away = np.zeros(inside.shape, np.int64)  # from the nearest outside of the same column
    for x in range(width):
        for y in range(1, height):
            away[x, y] = away[x, y - 1] + 1 if inside[x, y] else 0
        for y in range(height - 2, -1, -1):
            away[x, y] = min(away[x, y], away[x, y + 1] + 1)
    best, place = 0, 0
    for x in range(width):
        for y in range(height):
            nearest, step = away[x, y] ** 2, 1
            while nearest > best and step * step < nearest:
                nearest = min(nearest, step * step + min(away[x - step, y], away[x + step, y]) ** 2)
                step += 1
            if nearest > best:
                best, place = nearest, x * height + y
    return place
