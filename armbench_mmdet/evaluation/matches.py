"""COCO's greedy matching as a table of detections and instances, and curves from it."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.protocol import (
    COCO_IMAGE_AREA_PX,
    IOU_THRESHOLDS,
    MAX_PER_IMAGE,
    RECALL_THRESHOLDS,
    Common,
    Matching,
)
from armbench_mmdet.files import draft_of
from armbench_mmdet.jit import compiled

MISSED, FOUND, IGNORED = 0, 1, 2
_FIELDS = ('image', 'outcome', 'instances')


@dataclass(frozen=True)
class ClassMatches:
    """One class's detections by falling score."""

    image: np.ndarray  # (D,) int32, row of the image in the table
    outcome: np.ndarray  # (T, D) int8: MISSED (no instance at this IoU), FOUND or IGNORED (a crowd, say)
    instances: np.ndarray  # (I,) int32, instances in each image that count: no crowds

    @functools.cached_property
    def decided(self) -> tuple[np.ndarray, np.ndarray]:
        """The detections that are not missed at every threshold: ``(K,) int64``, and their outcomes ``(T, K) int8``."""
        places = np.flatnonzero((self.outcome != MISSED).any(axis=0))
        return places, self.outcome[:, places]

    @functools.cached_property
    def _ranks(self) -> np.ndarray:
        return _ranks(self.image, len(self.instances))

    def found_within(self, limit: int) -> np.ndarray:
        """``(T,) int64``, how many of the best detections of each image, so many at most, found an instance."""
        return np.count_nonzero((self.outcome == FOUND) & (self._ranks < limit), axis=1)

    def of_images(self, rows: np.ndarray) -> ClassMatches:
        """The matches in some images, rising rows."""
        row_of = np.full(len(self.instances), -1, np.int32)
        row_of[rows] = np.arange(len(rows))
        kept = row_of[self.image] >= 0
        return ClassMatches(row_of[self.image[kept]], self.outcome[:, kept], self.instances[rows])


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
    def _curves(self) -> dict[str, np.ndarray]:
        return {name: precision_at_recall(one) for name, one in self.classes.items()}

    def ap(self, iou: float | None = None, class_name: str | None = None) -> float | None:
        """Average precision over all IoU thresholds and classes unless one is named; None without instances."""
        rows = slice(None) if iou is None else np.isclose(IOU_THRESHOLDS, iou)
        return _mean([curve[rows] for name, curve in self._curves.items() if class_name in (None, name)])

    def ar(self, limit: int = MAX_PER_IMAGE, class_name: str | None = None) -> float | None:
        """Average recall with so many detections an image, over all classes unless one is named."""
        chosen = [one for name, one in self.classes.items() if class_name in (None, name) and one.instances.any()]
        return _mean([one.found_within(limit) / one.instances.sum() for one in chosen])

    def of_images(self, rows: np.ndarray) -> MatchTable:
        """The matches in some images, rising rows."""
        return MatchTable(self.image_ids[rows], {name: one.of_images(rows) for name, one in self.classes.items()})

    def save(self, path: Path) -> None:
        """Write the table as a compressed ``.npz``."""
        arrays = {f'{name}/{field}': getattr(one, field) for name, one in self.classes.items() for field in _FIELDS}
        path.parent.mkdir(parents=True, exist_ok=True)
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


def match_table(
    matching: Matching, areas: tuple[float, float] = (0.0, np.inf), is_relative: bool = False
) -> MatchTable:
    """Match the detections of every image and class as ``COCOeval.evaluateImg`` does.

    Args:
        matching: Detections and ground truth.
        areas: Ground truth outside is ignored, and so are detections outside that found nothing; px² of area.
        is_relative: Whether ``areas`` are for images of COCO's size, and scale with the images.
    """
    pixels = np.prod(np.array(matching.sizes, np.float64).reshape(-1, 2), axis=1)
    units = pixels / COCO_IMAGE_AREA_PX if is_relative else np.ones(len(pixels))
    is_inside, is_counted = (
        (areas[0] <= own) & (own <= areas[1])
        for own in (
            matching.common.found_sizes / units[matching.found.image],
            matching.areas / units[matching.truth.image],
        )
    )
    ignored = matching.crowd | ~is_counted
    outcome = matched(matching, ignored)[0]
    outcome[(outcome == MISSED) & ~is_inside] = IGNORED
    classes = {}
    for kind, (name, order) in enumerate(zip(matching.classes, matching.orders, strict=True)):
        counted = matching.truth.image[~ignored & (matching.truth.kind == kind)]
        instances = np.bincount(counted, minlength=len(pixels)).astype(np.int32)
        classes[name] = ClassMatches(matching.found.image[order], outcome[:, order], instances)
    return MatchTable(matching.image_ids, classes)


def matched(
    matching: Matching, ignored: np.ndarray, thresholds: np.ndarray = IOU_THRESHOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best score first, the free instance it overlaps most, an ignored one only for want of one.

    Args:
        matching: Detections and ground truth.
        ignored: ``(G,) bool``, what does not count: crowds, which any number of detections may be given, and more.
        thresholds: ``(T,) float64``, above 0.

    Returns:
        ``(T, D) int8`` outcomes, and ``(T, G) int64``, the detection that each instance was given to, or -1.
    """
    return _matched(matching.common, matching.crowd, ignored, np.minimum(thresholds, 1 - 1e-10))


@compiled
def _matched(
    common: Common, crowd: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    found_sizes, truth_sizes, lowest = common.found_sizes, common.truth_sizes, thresholds.min()
    outcome = np.zeros((thresholds.size, found_sizes.size), np.int8)
    owner = np.full((thresholds.size, truth_sizes.size), -1)
    near, ious = np.empty(truth_sizes.size, np.int64), np.empty(truth_sizes.size)
    for d in range(found_sizes.size):
        count = 0
        for g in range(common.own[d, 0], common.own[d, 1]):
            shared = common.values[common.offsets[d] + g]
            if shared > 0:
                whole = found_sizes[d] if crowd[g] else found_sizes[d] + truth_sizes[g] - shared
                near[count], ious[count] = g, shared / whole
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
    curves = np.full((len(matches.outcome), len(RECALL_THRESHOLDS)), np.nan)
    total = int(matches.instances.sum())
    if total:
        once = np.ones(len(matches.instances), np.int32)
        interpolate(matches.image, *matches.decided, once, total, RECALL_THRESHOLDS, curves)
    return curves


@compiled
def interpolate(
    image: np.ndarray,
    places: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    total: int,
    recalls: np.ndarray,
    curves: np.ndarray,
) -> None:
    """Write COCO's interpolated precision, an image of weight k counting k times.

    Precision is highest just after a detection that found something; the curve is followed from the lowest score up.

    Args:
        image: ``(D,) int32``, image of each detection, best score first.
        places: ``(K,) int64``, rising, the detections that are not missed at every threshold.
        outcome: ``(T, K) int8``, theirs.
        weights: ``(I,) int32``.
        total: Instances, weighted; at least 1.
        recalls: ``(R,) float64``, rising from 0.
        curves: ``(T, R) float64``, changed in place.
    """
    own, upto = weights[image[places]], np.empty(places.size, np.int64)
    seen, d = 0, 0
    for k in range(places.size):
        while d <= places[k]:
            seen += weights[image[d]]
            d += 1
        upto[k] = seen
    for t in range(outcome.shape[0]):
        hits, ignored, best, r = 0, 0, 0.0, recalls.size - 1
        for k in range(places.size):
            hits += own[k] * (outcome[t, k] == FOUND)
            ignored += own[k] * (outcome[t, k] == IGNORED)
        for k in range(places.size - 1, -1, -1):
            if outcome[t, k] == FOUND and own[k]:
                while r >= 0 and hits / total < recalls[r]:
                    curves[t, r] = best
                    r -= 1
                best = max(best, hits / (upto[k] - ignored))
                hits -= own[k]
            ignored -= own[k] * (outcome[t, k] == IGNORED)
        curves[t, : r + 1] = best


@compiled
def _ranks(image: np.ndarray, images: int) -> np.ndarray:
    """``(D,)``, the place of each detection among those of its image, from 0."""
    ranks, seen = np.empty(image.size, np.int32), np.zeros(images, np.int32)
    for d in range(image.size):
        ranks[d] = seen[image[d]]
        seen[image[d]] += 1
    return ranks


def _mean(parts: Sequence[np.ndarray]) -> float | None:
    defined = [part for part in parts if not np.isnan(part).any()]
    return float(np.mean(defined)) if defined else None
