"""Bootstrap intervals of scores, over images.

Images are drawn with replacement, as many as there are, and the score is computed anew; the interval holds the middle
95 % of the draws (percentile bootstrap, Efron & Tibshirani 1993, chapter 13). Two runs on the same images share the
draws, so their difference has a much narrower interval than either score: most of the spread is the images'.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import ClassMatches, MatchTable, interpolate
from armbench_mmdet.evaluation.protocol import RECALL_THRESHOLDS
from armbench_mmdet.evaluation.result import MEAN
from armbench_mmdet.jit import map_threads

RESAMPLES = 1000
DRAWS_AT_ONCE = 64


class Estimate(NamedTuple):
    """A score and the ends of its interval; None where there is no ground truth."""

    value: float | None
    low: float | None
    high: float | None


def group_intervals(tables: Sequence[MatchTable], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Intervals of the mAP of each class and, under ``mean``, of their mean.

    Args:
        tables: A run's table, or one for each of the runs that differ by their seed alone. Their mean counts, and in
            each draw of images as many runs are drawn with replacement, as clusters.
        resamples: How many draws.
        seed: The draws are the same for every table of as many images.

    Raises:
        InputError: The tables are not about the same images and classes, or there are no images.
    """
    return {name: _interval(scores) for name, scores in _group_scores(tables, resamples, seed, 0, tables[0]).items()}


def difference_intervals(
    first: Sequence[MatchTable], second: Sequence[MatchTable], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Intervals of ``first - second``, each draw of images scored under both; see :func:`group_intervals`."""
    scores, others = (
        _group_scores(tables, resamples, seed, number, first[0]) for number, tables in enumerate((first, second))
    )
    return {name: _interval(scores[name] - others[name]) for name in scores}


def _group_scores(
    tables: Sequence[MatchTable], resamples: int, seed: int, number: int, like: MatchTable
) -> dict[str, np.ndarray]:
    """As :func:`_scores`, of the mean over runs, which must be about the same images and classes as one of them."""
    for one in tables:
        if not np.array_equal(like.image_ids, one.image_ids) or like.classes.keys() != one.classes.keys():
            got = ' and '.join(f'{len(table.image_ids)} images of {list(table.classes)}' for table in (like, one))
            raise InputError(f'two runs must be evaluated on the same images and classes to be compared, got {got}')
    each = [_scores(table, resamples, seed) for table in tables]
    chosen = np.random.default_rng([seed, number]).integers(len(tables), size=(len(tables), resamples))
    chosen = np.column_stack([np.arange(len(tables)), chosen])  # every run once in what was observed
    return {name: np.take_along_axis(np.array([one[name] for one in each]), chosen, axis=0).mean(0) for name in each[0]}


def _interval(scores: np.ndarray) -> Estimate:
    observed, drawn = scores[0], scores[1:]
    drawn = drawn[~np.isnan(drawn)]  # a draw may hold no instance of a rare class
    if np.isnan(observed) or not drawn.size:
        return Estimate(None, None, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(observed), float(low), float(high))


def _scores(table: MatchTable, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """The mAP of each class and their mean, as observed and in the draws; ``(1 + resamples,) float64``, NaN if none."""
    images = len(table.image_ids)
    if not images:
        raise InputError('a match table must have images, got none')
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = np.concatenate([np.ones((1, images), np.int32), draws.astype(np.int32)])
    blocks = np.array_split(weights, range(DRAWS_AT_ONCE, len(weights), DRAWS_AT_ONCE))
    scores = {
        name: np.concatenate(map_threads(functools.partial(_averages, one, one.decided), blocks))
        for name, one in table.classes.items()
    }
    columns = np.ma.masked_invalid(list(scores.values()))
    return {MEAN: columns.mean(0).filled(np.nan), **scores}


def _averages(matches: ClassMatches, decided: tuple[np.ndarray, ...], weights: np.ndarray) -> np.ndarray:
    """The class's mAP under each row of image weights ``(B, I) int32``; NaN without instances."""
    totals = weights @ matches.instances
    return interpolate(decided, weights, totals, RECALL_THRESHOLDS).mean((1, 2))
