"""COCO's greedy matching as a table of detections and instances, and curves from it."""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Events(NamedTuple):
    """The detections that matter for precision and recall, one IoU threshold after another.

    Attributes:
        found: ``(K,) int64``, those that found an instance, rising.
        found_image: ``(K,) int32``, their images.
        found_starts: ``(T + 1,) int64``, where each threshold's part begins.
        ignored: ``(L,) int64``, those that do not count, rising.
        ignored_image: ``(L,) int32``.
        ignored_starts: ``(T + 1,) int64``.
    """

    found: np.ndarray
    found_image: np.ndarray
    found_starts: np.ndarray
    ignored: np.ndarray
    ignored_image: np.ndarray
    ignored_starts: np.ndarray


@dataclasses.dataclass(frozen=True)
class ClassMatches:
    """One class's detections by falling score.

    Attributes:
        image: ``(D,)`` int32, row of the image in the table.
        outcome: ``(T, D)`` int8: MISSED (no instance at this IoU), FOUND or IGNORED (a crowd, say).
        instances: ``(I,)`` int32, instances in each image that count: no crowds.
    """

    image: np.ndarray
    outcome: np.ndarray
    instances: np.ndarray

    @functools.cached_property
    def events(self) -> Events:
        """What found an instance and what does not count."""
        parts: list[np.ndarray] = []
        for kind in (FOUND, IGNORED):
            threshold, detection = np.nonzero(self.outcome == kind)
            starts = np.searchsorted(threshold, np.arange(len(self.outcome) + 1))
            parts += [detection, self.image[detection], starts]
        return Events(*parts)

    def found_within(self, limit: int) -> np.ndarray:
        """``(T,) int64``, how many of the best detections of each image, so many at most, found an instance."""
        is_within = np.concatenate([[0], np.cumsum(self._found_ranks < limit)])
        return np.diff(is_within[self.events.found_starts])

    @functools.cached_property
    def _found_ranks(self) -> np.ndarray:
        """``(K,)``, the place of what found an instance among the detections of its image, from 0."""
        return _ranks(self.image, len(self.instances))[self.events.found]

    def of_images(self, rows: np.ndarray) -> ClassMatches:
        """The matches in some images, rising rows."""
        row_of = np.full(len(self.instances), -1, np.int32)
        row_of[rows] = np.arange(len(rows))
        kept = row_of[self.image] >= 0
        return ClassMatches(row_of[self.image[kept]], self.outcome[:, kept], self.instances[rows])


@dataclasses.dataclass(frozen=True)
class MatchTable:
    """All classes' matches over the same images.

    Attributes:
        image_ids: ``(I,)`` int64, rising.
        classes: By class name.
    """

    image_ids: np.ndarray
    classes: dict[str, ClassMatches]

    @functools.cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """Each class's :func:`precision_at_recall`."""
        return {name: precision_at_recall(one) for name, one in self.classes.items()}

    def ap(self, iou: float | None = None, class_name: str | None = None) -> float | None:
        """Average precision over all IoU thresholds and classes unless one is named; None without instances."""
        rows = slice(None) if iou is None else np.isclose(IOU_THRESHOLDS, iou)
        return _mean([curve[rows] for name, curve in self.curves.items() if class_name in (None, name)])

    def ar(self, limit: int = MAX_PER_IMAGE, class_name: str | None = None) -> float | None:
        """Average recall with so many detections an image, over all classes unless one is named."""
        chosen = [one for name, one in self.classes.items() if class_name in (None, name) and one.instances.any()]
        return _mean([one.found_within(limit) / one.instances.sum() for one in chosen])

    def of_images(self, rows: np.ndarray) -> MatchTable:
        """The matches in some images, rising rows."""
        return MatchTable(self.image_ids[rows], {name: one.of_images(rows) for name, one in self.classes.items()})

    def save(self, path: str | Path) -> Path:
        """Write the table as a compressed ``.npz``."""
        path = Path(path)
        arrays: dict[str, Any] = {'image_ids': self.image_ids}
        for name, matches in self.classes.items():
            arrays |= {f'{name}/{key}': value for key, value in dataclasses.asdict(matches).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft, draft.open('wb') as file:
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> MatchTable:
        """Read a table.

        Raises:
            InputError: The file is missing or is no match table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            fields: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
            for key, value in arrays.items():
                name, _, field = key.rpartition('/')
                fields[name][field] = value
            header = fields.pop('')
            return cls(header['image_ids'], {name: ClassMatches(**one) for name, one in fields.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
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
    found_sizes, truth_sizes, values = common.found_sizes, common.truth_sizes, common.values
    outcome = np.zeros((thresholds.size, found_sizes.size), np.int8)
    owner = np.full((thresholds.size, truth_sizes.size), -1)
    near, ious, lowest = np.empty(truth_sizes.size, np.int64), np.empty(truth_sizes.size), thresholds.min()
    for group in range(common.starts.size - 1):
        at = common.starts[group]
        for d in range(common.found_starts[group], common.found_starts[group + 1]):
            count = 0
            for g in range(common.truth_starts[group], common.truth_starts[group + 1]):
                if values[at] > 0:
                    whole = found_sizes[d] if crowd[g] else found_sizes[d] + truth_sizes[g] - values[at]
                    near[count], ious[count] = g, values[at] / whole
                    count += ious[count] >= lowest
                at += 1
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

    Args:
        matches: One class's matches.

    Returns:
        ``(T, 101)`` float64, one curve for each IoU threshold, at ``RECALL_THRESHOLDS``; NaN without instances.
    """
    curves = np.full((len(matches.outcome), len(RECALL_THRESHOLDS)), np.nan)
    once = np.ones(len(matches.instances), np.int32)
    total = int(matches.instances.sum())
    if total:
        interpolate(matches.image, matches.events, once, total, RECALL_THRESHOLDS, curves)
    return curves


@compiled
def interpolate(
    image: np.ndarray, events: Events, weights: np.ndarray, total: int, recalls: np.ndarray, curves: np.ndarray
) -> None:
    """Write COCO's interpolated precision, an image of weight k counting k times.

    Precision is highest just after a detection that found something, so the curve is followed from one such to the
    one before, from the lowest score up.

    Args:
        image: ``(D,) int32``, image of each detection, best score first.
        events: What found something, and what does not count.
        weights: ``(I,) int32``.
        total: Instances, weighted; at least 1.
        recalls: ``(R,) float64``, rising from 0.
        curves: ``(T, R) float64``, changed in place.
    """
    found, found_image, found_starts, ignored, ignored_image, ignored_starts = events
    seen, so_far = np.empty(image.size, np.int64), 0
    for d in range(image.size):
        so_far += weights[image[d]]
        seen[d] = so_far
    needed = np.empty(recalls.size, np.int64)  # hits at which a recall is reached
    for r in range(recalls.size):
        needed[r] = int(recalls[r] * total)
        while needed[r] / total < recalls[r]:
            needed[r] += 1
        while needed[r] > 0 and (needed[r] - 1) / total >= recalls[r]:
            needed[r] -= 1
    for t in range(found_starts.size - 1):
        hits, uncounted, skip, best, r = 0, 0, ignored_starts[t + 1] - 1, 0.0, recalls.size - 1
        for k in range(found_starts[t], found_starts[t + 1]):
            hits += weights[found_image[k]]
        for k in range(ignored_starts[t], ignored_starts[t + 1]):
            uncounted += weights[ignored_image[k]]
        for k in range(found_starts[t + 1] - 1, found_starts[t] - 1, -1):
            while r >= 0 and needed[r] > hits:
                curves[t, r] = best
                r -= 1
            while skip >= ignored_starts[t] and ignored[skip] > found[k]:
                uncounted -= weights[ignored_image[skip]]
                skip -= 1
            best = max(best, hits / max(seen[found[k]] - uncounted, 1))
            hits -= weights[found_image[k]]
        curves[t, : r + 1] = best


@compiled
def _ranks(image: np.ndarray, images: int) -> np.ndarray:
    """``(D,)``, the place of each detection among those of its image, from 0."""
    ranks, seen = np.empty(image.size, np.int64), np.zeros(images, np.int64)
    for d in range(image.size):
        ranks[d] = seen[image[d]]
        seen[image[d]] += 1
    return ranks


def _mean(parts: Sequence[np.ndarray]) -> float | None:
    defined = [part for part in parts if not np.isnan(part).any()]
    return float(np.mean(defined)) if defined else None
