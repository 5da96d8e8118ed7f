"""COCO's greedy matching as a table of detections and instances, and curves from it."""

from __future__ import annotations

import dataclasses
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numba
import numpy as np

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.protocol import (
    IOU_THRESHOLDS,
    RECALL_THRESHOLDS,
    Matching,
    best_first,
    by_image_and_class,
)
from armbench_mmdet.files import draft_of

MISSED, FOUND, IGNORED = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class ClassMatches:
    """One class's detections by falling score.

    Attributes:
        image: ``(D,)`` int32, row of the image in the table.
        outcome: ``(T, D)`` int8: MISSED (no instance at this IoU), FOUND or IGNORED (a crowd).
        instances: ``(I,)`` int32, instances in each image, crowds not counted.
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


def match_table(matching: Matching) -> MatchTable:
    """Match the detections of every image and class as ``COCOeval.evaluateImg`` does, over all areas."""
    image_ids = sorted(matching.images)
    annotations, detections = by_image_and_class(matching.annotations), by_image_and_class(matching.detections)
    classes = {}
    for name, category in zip(matching.classes, matching.category_ids, strict=True):
        image, score, outcome = [], [], []
        instances = np.zeros(len(image_ids), np.int32)
        for row, image_id in enumerate(image_ids):
            pair = (image_id, category)
            crowd = np.array([bool(a.get('iscrowd')) for a in annotations.get(pair, ())], bool)
            instances[row] = int((~crowd).sum())
            found = [detection['score'] for detection in best_first(detections.get(pair, ()))]
            ious = matching.ious.get(pair)
            image.append(np.full(len(found), row, np.int32))
            score.append(np.array(found, np.float64))
            outcome.append(
                np.zeros((len(IOU_THRESHOLDS), len(found)), np.int8)
                if ious is None
                else match_image(ious, crowd, IOU_THRESHOLDS)[0]
            )
        order = np.argsort(-np.concatenate(score), kind='stable')
        classes[name] = ClassMatches(np.concatenate(image)[order], np.concatenate(outcome, axis=1)[:, order], instances)
    return MatchTable(np.array(image_ids, np.int64), classes)


@numba.njit(cache=True, nogil=True)
def match_image(ious: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best score first, the free instance it overlaps most, a crowd only for want of one.

    Args:
        ious: ``(D, G)`` float64, detections by falling score.
        crowd: ``(G,)`` bool.
        thresholds: ``(T,)`` float64.

    Returns:
        ``(T, D)`` int8 outcomes, and ``(T, G)`` bool, the instances that were found.
    """
    outcome = np.zeros((thresholds.size, ious.shape[0]), np.int8)
    found = np.zeros((thresholds.size, crowd.size), np.bool_)
    for t in range(thresholds.size):
        taken = found[t]
        for d in range(ious.shape[0]):
            best, chosen = min(thresholds[t], 1 - 1e-10), -1
            # Of equal overlaps COCO takes the last one; crowds come after all instances.
            for g in range(crowd.size):
                if not crowd[g] and not taken[g] and ious[d, g] >= best:
                    best, chosen = ious[d, g], g
            if chosen >= 0:
                taken[chosen] = True
                outcome[t, d] = FOUND
                continue
            for g in range(crowd.size):
                if crowd[g] and ious[d, g] >= best:
                    outcome[t, d] = IGNORED
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
