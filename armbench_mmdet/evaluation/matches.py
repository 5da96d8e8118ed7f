"""COCO's greedy matching as a table of detections and instances, and curves from it."""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.protocol import (
    COCO_IMAGE_AREA_PX,
    IOU_THRESHOLDS,
    MAX_PER_IMAGE,
    RECALL_THRESHOLDS,
    Matching,
)
from armbench_mmdet.files import draft_of

MISSED, FOUND, IGNORED = 0, 1, 2


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
        found = [(one.outcome[:, _ranks(one.image) < limit] == FOUND).sum(1) for one in chosen]
        return _mean([hits / one.instances.sum() for hits, one in zip(found, chosen, strict=True)])

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
    matching: Matching,
    areas: tuple[float, float] = (0.0, np.inf),
    is_relative: bool = False,
    image_ids: Iterable[int] | None = None,
) -> MatchTable:
    """Match the detections of every image and class as ``COCOeval.evaluateImg`` does.

    Args:
        matching: Detections and ground truth.
        areas: Ground truth outside is ignored, and so are detections outside that found nothing; px² of area.
        is_relative: Whether ``areas`` are for images of COCO's size, and scale with the images.
        image_ids: The images; all by default.
    """
    chosen = sorted(matching.images if image_ids is None else image_ids)
    classes = {}
    for name, category in zip(matching.classes, matching.category_ids, strict=True):
        image, score = [np.empty(0, np.int32)], [np.empty(0)]
        outcome: list[np.ndarray] = [np.empty((len(IOU_THRESHOLDS), 0), np.int8)]
        instances = np.zeros(len(chosen), np.int32)
        for row, image_id in enumerate(chosen):
            pair = matching.overlaps.get((image_id, category))
            if pair is None:
                continue
            size = matching.images[image_id]
            unit = size['height'] * size['width'] / COCO_IMAGE_AREA_PX if is_relative else 1.0
            is_inside, is_counted = (
                (areas[0] <= own / unit) & (own / unit <= areas[1]) for own in (pair.areas, pair.truth_areas)
            )
            ignored = pair.crowd | ~is_counted
            found = match_image(pair.ious, pair.crowd, ignored, IOU_THRESHOLDS)[0]
            image.append(np.full(len(pair.scores), row, np.int32))
            score.append(pair.scores)
            outcome.append(np.where((found == MISSED) & ~is_inside, IGNORED, found).astype(np.int8))
            instances[row] = (~ignored).sum()
        order = np.argsort(-np.concatenate(score), kind='stable')
        classes[name] = ClassMatches(np.concatenate(image)[order], np.concatenate(outcome, axis=1)[:, order], instances)
    return MatchTable(np.array(chosen, np.int64), classes)


@numba.njit(cache=True, nogil=True)
def match_image(
    ious: np.ndarray, crowd: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best score first, the free instance it overlaps most, an ignored one only for want of one.

    Args:
        ious: ``(D, G)`` float64, detections by falling score.
        crowd: ``(G,)`` bool, what any number of detections may be given.
        ignored: ``(G,)`` bool, what does not count: crowds and more.
        thresholds: ``(T,)`` float64.

    Returns:
        ``(T, D)`` int8 outcomes, and ``(T, G)`` bool, the instances that were found.
    """
    outcome = np.zeros((thresholds.size, ious.shape[0]), np.int8)
    found = np.zeros((thresholds.size, crowd.size), np.bool_)
    for t in range(thresholds.size):
        for d in range(ious.shape[0]):
            best, chosen = min(thresholds[t], 1 - 1e-10), -1
            for is_ignored in (False, True):
                # Of equal overlaps COCO takes the last one.
                for g in range(crowd.size):
                    is_free = crowd[g] or not found[t, g]
                    if ignored[g] == is_ignored and is_free and ious[d, g] >= best:
                        best, chosen = ious[d, g], g
                if chosen >= 0:
                    found[t, chosen] = True
                    outcome[t, d] = IGNORED if is_ignored else FOUND
                    break
    return outcome, found


def precision_at_recall(matches: ClassMatches) -> np.ndarray:
    """COCO's interpolated precision: the best at each recall point or above it, 0 beyond the last recall reached.

    Args:
        matches: One class's matches.

    Returns:
        ``(T, 101)`` float64, one curve for each IoU threshold, at ``RECALL_THRESHOLDS``; NaN without instances.
    """
    curves = np.full((len(matches.outcome), len(RECALL_THRESHOLDS)), np.nan)
    instances = int(matches.instances.sum())
    if not instances:
        return curves
    for curve, outcome in zip(curves, matches.outcome, strict=True):
        hits, misses = np.cumsum(outcome == FOUND), np.cumsum(outcome == MISSED)
        precision = hits / np.maximum(hits + misses, 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        first = np.searchsorted(hits / instances, RECALL_THRESHOLDS, side='left')
        reached = first < len(outcome)
        curve[:] = 0
        curve[reached] = best_from_here[first[reached]]
    return curves


def _ranks(image: np.ndarray) -> np.ndarray:
    """``(D,)``, the place of each detection among those of its image, from 0."""
    by_image = np.argsort(image, kind='stable')
    ranks = np.empty(len(image), np.int64)
    ranks[by_image] = np.arange(len(image)) - np.searchsorted(image[by_image], image[by_image])
    return ranks


def _mean(parts: Sequence[np.ndarray]) -> float | None:
    defined = [part for part in parts if not np.isnan(part).any()]
    return float(np.mean(defined)) if defined else None
