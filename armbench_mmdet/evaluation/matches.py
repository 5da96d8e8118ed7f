"""COCO's greedy matching as a table of detections and instances; scores from it, their curves and their intervals.

For an interval, images are drawn with replacement, as many as there are, and the score is computed anew; it holds the
middle 95 % of the draws (percentile bootstrap, Efron & Tibshirani 1993, chapter 13). Two runs on the same images share
the draws, so their difference has a much narrower interval than either score: most of the spread is the images'.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import protocol
from armbench_mmdet.evaluation.protocol import MAX_PER_IMAGE, Common, Matching
from armbench_mmdet.evaluation.result import MEAN, ClassScores, Interval, StratumScores, TypeScores
from armbench_mmdet.files import draft_of
from armbench_mmdet.jit import compiled, map_threads

RESAMPLES = 1000
DRAWS_AT_ONCE = 64

MISSED, FOUND, IGNORED = 0, 1, 2
_FIELDS = ('image', 'outcome', 'instances')


@dataclass(frozen=True)
class ClassMatches:
    """One class's detections by falling score."""

    image: np.ndarray  # (D,) int32, row of the image in the table
    outcome: np.ndarray  # (T, D) int8: MISSED (no instance at this IoU), FOUND or IGNORED (a crowd, say)
    instances: np.ndarray  # (I,) int32, instances in each image that count: no crowds

    @functools.cached_property
    def decided(self) -> tuple[np.ndarray, ...]:
        """Of the detections that are not IGNORED at every threshold the images; then which of them are FOUND, threshold
        by threshold, and where each threshold begins; the same of IGNORED.
        """
        kept = np.flatnonzero((self.outcome != IGNORED).any(axis=0))
        parts = [self.image[kept]]
        for outcome in (FOUND, IGNORED):
            thresholds, places = np.nonzero(self.outcome[:, kept] == outcome)
            parts += [places.copy(), np.searchsorted(thresholds, np.arange(len(self.outcome) + 1))]
        return tuple(parts)

    def found_within(self, limit: int) -> np.ndarray:
        """``(T,) int64``, how many of the best detections of each image, so many at most, found an instance."""
        outcome = self.outcome
        if limit < MAX_PER_IMAGE:
            order = np.argsort(self.image, kind='stable')
            image = self.image[order]
            outcome = outcome[:, order[np.arange(len(order)) - np.searchsorted(image, image) < limit]]
        return np.count_nonzero(outcome == FOUND, axis=1)

    def curves(self, weights: np.ndarray) -> np.ndarray:
        """``(B, T, 101) float64``, precision at ``RECALL_THRESHOLDS`` in draws of images; see :func:`interpolate`."""
        return interpolate(self.decided, weights, weights @ self.instances, protocol.RECALL_THRESHOLDS)

    def of_images(self, chosen: np.ndarray) -> ClassMatches:
        """The matches in some images ``(I,) bool``; the others are left without detections and instances."""
        kept = chosen[self.image]
        return ClassMatches(self.image[kept], self.outcome[:, kept], self.instances * chosen)


@dataclass(frozen=True)
class MatchTable:
    """All classes' matches over the same images."""

    image_ids: np.ndarray  # (I,) int64, rising
    classes: dict[str, ClassMatches]

    @functools.cached_property
    def instances(self) -> np.ndarray:
        """``(I,) int64``, of all classes."""
        return sum((one.instances for one in self.classes.values()), np.zeros(len(self.image_ids), np.int64))

    @functools.cached_property
    def density(self) -> np.ndarray:
        """``(I,) str``, the density bin of each image; empty without instances."""
        bins = np.searchsorted(protocol.DENSITY_STARTS, self.instances, side='right')
        return np.array(['', *protocol.DENSITY_NAMES])[bins]

    @functools.cached_property
    def _curves(self) -> dict[str, np.ndarray]:
        return {name: precision_at_recall(one) for name, one in self.classes.items()}

    def ap(self, iou: float | None = None, class_name: str | None = None) -> float | None:
        """Average precision over all IoU thresholds and classes unless one is named; None without instances."""
        rows = slice(None) if iou is None else np.isclose(protocol.IOU_THRESHOLDS, iou)
        return _mean([curve[rows] for name, curve in self._curves.items() if class_name in (None, name)])

    def ar(self, limit: int = MAX_PER_IMAGE, class_name: str | None = None) -> float | None:
        """Average recall with so many detections an image, over all classes unless one is named."""
        chosen = [one for name, one in self.classes.items() if class_name in (None, name) and one.instances.any()]
        return _mean([one.found_within(limit) / one.instances.sum() for one in chosen])

    def of_images(self, chosen: np.ndarray) -> MatchTable:
        """The matches in some images, see :meth:`ClassMatches.of_images`."""
        return MatchTable(self.image_ids, {name: one.of_images(chosen) for name, one in self.classes.items()})

    def save(self, path: Path) -> None:
        """Write the table as a compressed ``.npz``."""
        arrays = {f'{name}/{field}': getattr(one, field) for name, one in self.classes.items() for field in _FIELDS}
        with draft_of(path) as draft, draft.open('wb') as file:
            np.savez_compressed(file, image_ids=self.image_ids, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> MatchTable:
        """Read a table.

        Raises:
            InputError: The file is missing or is no match table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = dict.fromkeys(key.rpartition('/')[0] for key in file if '/' in key)
                parts = {name: ClassMatches(*(file[f'{name}/{field}'] for field in _FIELDS)) for name in names}
                return cls(file['image_ids'], parts)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f'match table must be a readable file written by tools/test.py, got {error!r} (in {path})'
            ) from error


def match_table(matching: Matching, areas: Sequence[float] = (0.0, np.inf), is_relative: bool = False) -> MatchTable:
    """Match the detections of every image and class as ``COCOeval.evaluateImg`` does.

    Args:
        matching: Detections and ground truth.
        areas: Ground truth outside is ignored, and so are detections outside that found nothing; px² of area.
        is_relative: Whether ``areas`` are for images of COCO's size, and scale with the images.
    """
    pixels = np.array(matching.sizes, np.float64).reshape(-1, 2).prod(1)
    units = pixels / protocol.COCO_IMAGE_AREA_PX if is_relative else np.ones_like(pixels)
    (low, high), truth = areas, matching.truth
    found_areas = matching.common.found_sizes / units[matching.found.image]
    truth_areas = matching.areas / units[truth.image]
    ignored = matching.crowd | (truth_areas < low) | (truth_areas > high)
    outcome, _ = matched(matching.common, matching.crowd, ignored, protocol.IOU_THRESHOLDS)
    outcome[(outcome == MISSED) & ((found_areas < low) | (found_areas > high))] = IGNORED
    classes = {}
    for kind, (name, order) in enumerate(zip(matching.classes, matching.orders, strict=True)):
        instances = np.bincount(truth.image[~ignored & (truth.kind == kind)], minlength=len(pixels)).astype(np.int32)
        classes[name] = ClassMatches(matching.found.image[order], outcome[:, order], instances)
    return MatchTable(matching.image_ids, classes)


@compiled
def matched(
    common: Common, crowd: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best score first, the free instance it overlaps most, an ignored one only for want of one.

    Args:
        common: What detections and instances have in common.
        crowd: ``(G,) bool``, what any number of detections may be given.
        ignored: ``(G,) bool``, what does not count: crowds and more.
        thresholds: ``(T,) float64``, above 0.

    Returns:
        ``(T, D) int8`` outcomes, and ``(T, G) int64``, the detection that each instance was given to, or -1.
    """
    detections, instances, lowest = len(common.own), crowd.size, thresholds.min()
    outcome = np.zeros((thresholds.size, detections), np.int8)
    owner = np.full((thresholds.size, instances), -1)
    near, ious = np.empty(instances, np.int64), np.empty(instances)
    for d in range(detections):
        count = 0
        for g in range(common.own[d, 0], common.own[d, 1]):
            near[count], ious[count] = g, common.ious[common.offsets[d] + g]
            count += ious[count] >= lowest
        for t in range(thresholds.size if count else 0):
            best, chosen = thresholds[t], -1
            for is_ignored in (False, True):
                # Of equal overlaps COCO takes the last one.
                for k in range(count):
                    g = near[k]
                    if ignored[g] == is_ignored and (crowd[g] or owner[t, g] < 0) and ious[k] >= best:
                        best, chosen = ious[k], g
                if chosen >= 0:
                    owner[t, chosen] = d
                    outcome[t, d] = IGNORED if is_ignored else FOUND
                    break
    return outcome, owner


def precision_at_recall(matches: ClassMatches) -> np.ndarray:
    """COCO's interpolated precision: the best at each recall point or above it, 0 beyond the last recall reached.

    Returns:
        ``(T, 101)`` float64, one curve for each IoU threshold, at ``RECALL_THRESHOLDS``; NaN without instances.
    """
    return matches.curves(np.ones((1, len(matches.instances)), np.int32))[0]


@compiled
def interpolate(
    decided: tuple[np.ndarray, ...], weights: np.ndarray, totals: np.ndarray, recalls: np.ndarray
) -> np.ndarray:
    """COCO's interpolated precision in B draws of images, an image of weight k counting k times.

    Precision is highest just after a detection that found something; the curve is followed from the lowest score up.

    Args:
        decided: See :class:`ClassMatches`.
        weights: ``(B, I) int32``.
        totals: ``(B,)``, instances, weighted.
        recalls: ``(R,) float64``, rising from 0.

    Returns:
        ``(B, T, R) float64``; NaN in draws without instances.
    """
    image, found, found_starts, ignored, ignored_starts = decided
    curves = np.full((len(weights), found_starts.size - 1, recalls.size), np.nan)
    upto = np.empty(image.size, np.int32)
    for b in range(len(weights)):
        weight, seen = weights[b], 0
        for d in range(image.size):
            seen += weight[image[d]]
            upto[d] = seen
        for t in range(curves.shape[1] if totals[b] else 0):
            own = found[found_starts[t] : found_starts[t + 1]]
            aside = ignored[ignored_starts[t] : ignored_starts[t + 1]]
            hits, skipped, best, r, i = 0, 0, 0.0, recalls.size - 1, aside.size - 1
            for d in own:
                hits += weight[image[d]]
            for d in aside:
                skipped += weight[image[d]]
            for d in own[::-1]:
                if not hits:
                    break
                while i >= 0 and aside[i] > d:
                    skipped -= weight[image[aside[i]]]
                    i -= 1
                while hits / totals[b] < recalls[r]:
                    curves[b, t, r] = best
                    r -= 1
                best = max(best, hits / (upto[d] - skipped))
                hits -= weight[image[d]]
            curves[b, t, : r + 1] = best
    return curves


def _mean(parts: Sequence[np.ndarray]) -> float | None:
    defined = [part for part in parts if not np.isnan(part).any()]
    return float(np.mean(defined)) if defined else None


def scores_of_type(matching: Matching, whole: MatchTable, confidence: dict[str, Interval] | None = None) -> TypeScores:
    """Everything the result file holds under one IoU type, with the match table of all sizes."""
    units = {unit: sized_tables(matching, is_relative=unit == 'relative') for unit in ('coco', 'relative')}
    by_size = units['coco']
    return TypeScores(
        **summary(whole, by_size),
        per_class={
            name: ClassScores(**summary(whole, by_size, name), instances=int(one.instances.sum()))
            for name, one in whole.classes.items()
        },
        per_size={unit: {size: _stratum(one) for size, one in tables.items()} for unit, tables in units.items()},
        per_density={name: _stratum(whole.of_images(whole.density == name)) for name in protocol.DENSITY_NAMES},
        confidence=confidence,
    )


def sized_tables(matching: Matching, is_relative: bool = False) -> dict[str, MatchTable]:
    """The matches by size of the instance, in px or relative to the image."""
    return {size: match_table(matching, areas, is_relative) for size, areas in protocol.SIZES.items()}


def summary(whole: MatchTable, by_size: Mapping[str, MatchTable], name: str | None = None) -> dict[str, float | None]:
    """The nine numbers of the result file, under their names there; over all classes unless one is named."""
    return {
        'mAP': whole.ap(class_name=name),
        **{f'mAP_{round(100 * iou)}': whole.ap(iou, name) for iou in (0.5, 0.75)},
        **{f'mAP_{size}': one.ap(class_name=name) for size, one in by_size.items()},
        **{f'AR_{limit}': whole.ar(limit, name) for limit in protocol.MAX_DETS},
    }


def _stratum(table: MatchTable) -> StratumScores:
    return StratumScores(
        mAP=table.ap(),
        mAP_50=table.ap(0.5),
        mAP_75=table.ap(0.75),
        AR_100=table.ar(),
        per_class={name: table.ap(class_name=name) for name in table.classes},
        instances=int(table.instances.sum()),
        images=np.count_nonzero(table.instances),
    )


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
        InputError: The tables are not about the same images and classes.
    """
    return {name: _interval(scores) for name, scores in _group_scores(tables, resamples, seed, 0, tables[0]).items()}


def difference_intervals(
    first: Sequence[MatchTable], second: Sequence[MatchTable], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Intervals of ``first - second``, each draw of images scored under both; see :func:`group_intervals`."""
    scores = _group_scores(first, resamples, seed, 0, first[0])
    others = _group_scores(second, resamples, seed, 1, first[0])
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
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    weights = np.concatenate([np.ones((1, images), np.int32), draws.astype(np.int32)])
    blocks = np.array_split(weights, range(DRAWS_AT_ONCE, len(weights), DRAWS_AT_ONCE))
    scores = {
        name: np.concatenate([curves.mean((1, 2)) for curves in map_threads(one.curves, blocks)])
        for name, one in table.classes.items()
    }
    columns = np.ma.masked_invalid(list(scores.values()))
    return {MEAN: columns.mean(0).filled(np.nan), **scores}
