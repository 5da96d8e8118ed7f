"""Bootstrap intervals of scores, over images.

Images are drawn with replacement, as many as there are, and the score is computed anew; the interval holds the middle
95 % of the draws (percentile bootstrap, Efron & Tibshirani 1993, chapter 13). Two runs on the same images share the
draws, so their difference has a much narrower interval than either score: most of the spread is the images'.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import ClassMatches, Events, MatchTable, interpolate
from armbench_mmdet.evaluation.protocol import RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import MEAN
from armbench_mmdet.jit import compiled, map_threads

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


def group_intervals(tables: Sequence[MatchTable], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Intervals of the mean of runs that differ by their seed alone: images are drawn anew, and seeds, as clusters.

    Raises:
        InputError: The tables are not about the same images and classes.
    """
    observed, drawn = _group_scores(tables, resamples, seed, 0)
    return {name: _interval(observed[name], drawn[name]) for name in observed}


def difference_intervals(
    first: Sequence[MatchTable], second: Sequence[MatchTable], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Intervals of ``first - second``, each draw of images scored under both.

    Args:
        first: A run's table, or one for each of the runs that differ by their seed alone; their mean counts.
        second: The same.
        resamples: How many draws.
        seed: Of the draws.

    Raises:
        InputError: The tables are not about the same images and classes.
    """
    _check_alike([*first, *second])
    observed_a, drawn_a = _group_scores(first, resamples, seed, 0)
    observed_b, drawn_b = _group_scores(second, resamples, seed, 1)
    return {name: _interval(observed_a[name] - observed_b[name], drawn_a[name] - drawn_b[name]) for name in observed_a}


def _check_alike(tables: Sequence[MatchTable]) -> None:
    first = tables[0]
    for other in tables[1:]:
        if not np.array_equal(first.image_ids, other.image_ids) or first.classes.keys() != other.classes.keys():
            got = ' and '.join(f'{len(table.image_ids)} images of {list(table.classes)}' for table in (first, other))
            raise InputError(f'two runs must be evaluated on the same images and classes to be compared, got {got}')


def _group_scores(
    tables: Sequence[MatchTable], resamples: int, seed: int, number: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """As :func:`_scores`, of the mean over runs; in each draw, as many runs are drawn with replacement."""
    _check_alike(tables)
    every = [_scores(table, resamples, seed) for table in tables]
    chosen = np.random.default_rng([seed, number]).integers(len(tables), size=(len(tables), resamples))
    observed = {name: float(np.mean([one[name] for one, _ in every])) for name in every[0][0]}
    drawn = {
        name: np.take_along_axis(np.array([one[name] for _, one in every]), chosen, axis=0).mean(0)
        for name in every[0][1]
    }
    return observed, drawn


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
    blocks = [min(DRAWS_AT_ONCE, resamples - start) for start in range(0, resamples, DRAWS_AT_ONCE)]
    weights = [rng.multinomial(images, np.full(images, 1 / images), size=block).astype(np.int32) for block in blocks]
    observed, drawn = {}, {}
    for name, one in table.classes.items():
        observed[name] = float(_class_scores(one, np.ones((1, images), np.int32))[0])
        drawn[name] = np.concatenate([np.empty(0), *map_threads(functools.partial(_class_scores, one), weights)])
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
    scores = np.full(len(weights), np.nan)
    _average_precisions(matches.image, matches.events, weights, weights @ matches.instances, RECALL_THRESHOLDS, scores)
    return scores


@compiled
def _average_precisions(
    image: np.ndarray, events: Events, weights: np.ndarray, totals: np.ndarray, recalls: np.ndarray, scores: np.ndarray
) -> None:
    """Write the mean of the interpolated precision of every draw, see ``interpolate``."""
    curves = np.empty((events.found_starts.size - 1, recalls.size))
    for b in range(scores.size):
        if totals[b]:
            interpolate(image, events, weights[b], totals[b], recalls, curves)
            scores[b] = curves.mean()
