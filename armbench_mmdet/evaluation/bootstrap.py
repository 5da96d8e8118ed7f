"""Bootstrap intervals of scores, over images.

Images are drawn with replacement, as many as there are, and the score is computed anew; the interval holds the middle
95 % of the draws (percentile bootstrap, Efron & Tibshirani 1993, chapter 13). Two runs on the same images share the
draws, so their difference has a much narrower interval than either score: most of the spread is the images'.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import FOUND, IGNORED, ClassMatches, MatchTable
from armbench_mmdet.evaluation.protocol import RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import MEAN

RESAMPLES = 1000
DRAWS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score and the ends of its interval; None where there is no ground truth."""

    value: float | None
    low: float | None
    high: float | None


def confidence_intervals(table: MatchTable, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Intervals of the mAP of each class and, under ``mean``, of their mean.

    Args:
        table: From :func:`~armbench_mmdet.evaluation.matches.match_table`.
        resamples: How many draws; 1000 gives the ends to about a hundredth of the interval's width.
        seed: The draws are the same for every table of as many images.
    """
    observed, drawn = _scores(table, resamples, seed)
    return {name: _interval(observed[name], drawn[name]) for name in observed}


def difference_intervals(
    first: MatchTable, second: MatchTable, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Intervals of ``first - second``, each draw of images scored under both.

    Raises:
        InputError: The tables are not about the same images and classes.
    """
    if not np.array_equal(first.image_ids, second.image_ids) or first.classes.keys() != second.classes.keys():
        got = ' and '.join(f'{len(table.image_ids)} images of {list(table.classes)}' for table in (first, second))
        raise InputError(f'two runs must be evaluated on the same images and classes to be compared, got {got}')
    observed_a, drawn_a = _scores(first, resamples, seed)
    observed_b, drawn_b = _scores(second, resamples, seed)
    return {name: _interval(observed_a[name] - observed_b[name], drawn_a[name] - drawn_b[name]) for name in observed_a}


def _interval(observed: float, drawn: np.ndarray) -> Estimate:
    drawn = drawn[~np.isnan(drawn)]  # a draw may hold no instance of a rare class
    if np.isnan(observed) or not drawn.size:
        return Estimate(None, None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(observed), float(low), float(high))


def _scores(table: MatchTable, resamples: int, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The mAP by class and their mean: as observed, and ``(resamples,)`` float64 of the draws; NaN where undefined."""
    images = len(table.image_ids)
    if not images:
        raise InputError('a match table must have images, got none')
    rng = np.random.default_rng(seed)
    observed = {name: _class_scores(one, np.ones((1, images), np.int32))[0] for name, one in table.classes.items()}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in table.classes}
    for start in range(0, resamples, DRAWS_AT_ONCE):
        draws = min(DRAWS_AT_ONCE, resamples - start)
        weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.int32)
        for name, one in table.classes.items():
            parts[name].append(_class_scores(one, weights))
    drawn = {name: np.concatenate(part) if part else np.empty(0) for name, part in parts.items()}
    columns = np.array(list(drawn.values())).reshape(len(drawn), -1)
    return (
        {MEAN: float(_mean_of_defined(np.array([list(observed.values())]).T)[0]), **observed},
        {MEAN: _mean_of_defined(columns), **drawn},
    )


def _mean_of_defined(scores: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(scores)
    with np.errstate(invalid='ignore'):
        return np.where(defined, scores, 0).sum(0) / defined.sum(0)


def _class_scores(matches: ClassMatches, weights: np.ndarray) -> np.ndarray:
    """The class's mAP under each row of image weights ``(B, I)`` int32; ``(B,)`` float64, NaN without instances."""
    outcome = matches.outcome
    found, ignored = (np.nonzero(outcome == kind) for kind in (FOUND, IGNORED))
    bounds = np.arange(len(outcome) + 1)
    return _mean_average_precision(
        matches.image[: found[1].max(initial=-1) + 1],
        found[1],
        np.searchsorted(found[0], bounds),
        ignored[1],
        np.searchsorted(ignored[0], bounds),
        weights,
        weights @ matches.instances,
        RECALL_THRESHOLDS,
    )


@numba.njit(cache=True, nogil=True)
def _interpolated_area(recall: np.ndarray, precision: np.ndarray, recall_points: np.ndarray) -> float:
    """The sum over the recall points of the best precision at that recall or above, points ``(K,)`` rising."""
    best, area, point = 0.0, 0.0, recall_points.size - 1
    for k in range(recall.size - 1, -1, -1):
        best = max(best, precision[k])
        before = recall[k - 1] if k else -1.0
        while point >= 0 and recall_points[point] > before:
            if recall_points[point] <= recall[k]:
                area += best
            point -= 1
    return area


@numba.njit(cache=True, nogil=True)
def _mean_average_precision(
    image: np.ndarray,
    found: np.ndarray,
    found_start: np.ndarray,
    ignored: np.ndarray,
    ignored_start: np.ndarray,
    weights: np.ndarray,
    totals: np.ndarray,
    recall_points: np.ndarray,
) -> np.ndarray:
    """COCO's interpolated average precision, averaged over the IoU thresholds, for every draw of images.

    Precision is highest just after a detection that found something, so the curve is followed from one such to the
    next. An image drawn k times counts k times.

    Args:
        image: ``(D,)`` int32, image of each detection, best score first.
        found: Rising indices of the detections that found an instance, one threshold after another.
        found_start: ``(T + 1,)``, where each threshold's part of ``found`` begins.
        ignored: The same for detections that do not count.
        ignored_start: ``(T + 1,)``.
        weights: ``(B, I)`` int32, how often each image was drawn.
        totals: ``(B,)``, instances in each draw.
        recall_points: ``(R,)`` float64, rising.

    Returns:
        ``(B,)`` float64, NaN for a draw without instances.
    """
    thresholds = found_start.size - 1
    result = np.full(weights.shape[0], np.nan)
    seen = np.empty(image.size, np.int64)
    recall, precision = np.empty(found.size), np.empty(found.size)
    for b in range(weights.shape[0]):
        if totals[b] == 0:
            continue
        drawn = 0
        for d in range(image.size):
            drawn += weights[b, image[d]]
            seen[d] = drawn
        area = 0.0
        for t in range(thresholds):
            first, stop, skip = found_start[t], found_start[t + 1], ignored_start[t]
            hits, uncounted = 0, 0
            for k in range(first, stop):
                d = found[k]
                while skip < ignored_start[t + 1] and ignored[skip] < d:
                    uncounted += weights[b, image[ignored[skip]]]
                    skip += 1
                hits += weights[b, image[d]]
                counted = seen[d] - uncounted
                recall[k] = hits / totals[b]
                precision[k] = hits / counted if counted else 0.0
            area += _interpolated_area(recall[first:stop], precision[first:stop], recall_points)
        result[b] = area / (recall_points.size * thresholds)
    return result
