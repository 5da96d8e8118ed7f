"""A score for every single image, and the images that stand for the best, the middle and the worst by it.

An image's score for a class is the average precision of that image alone under COCO's protocol: IoU 0.50:0.95, all its
detections of the class up to 100, whatever their score, 101 recall points. Over ``all`` classes it is the mean of the
classes that the image has instances of. An image without instances of the class has no score and is not chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from armbench_mmdet.evaluation.matches import FOUND, IGNORED, ClassMatches, MatchTable
from armbench_mmdet.evaluation.protocol import RECALL_THRESHOLDS

ALL = 'all'
KINDS = ('best', 'median', 'worst')


class Choice(NamedTuple):
    """An image chosen by its score.

    Attributes:
        kind: ``best``, ``median`` or ``worst``.
        image_id: The image.
        score: From 0 to 1.
        rank: 1 for the best.
        images: How many were ranked.
    """

    kind: str
    image_id: int
    score: float
    rank: int
    images: int


def image_scores(table: MatchTable, class_name: str = ALL) -> np.ndarray:
    """The score of every image, see the module.

    Args:
        table: The matches of a result.
        class_name: A class of the table, or ``all``.

    Returns:
        ``(I,)`` float64 in the table's order, NaN where there is none.
    """
    names = list(table.classes) if class_name == ALL else [class_name]
    columns = np.array([_class_scores(table.classes[name]) for name in names])
    defined = ~np.isnan(columns)
    with np.errstate(invalid='ignore'):
        return np.where(defined, columns, 0).sum(0) / defined.sum(0)


def choose(table: MatchTable, class_name: str, per_kind: int) -> list[Choice]:
    """The best, the median and the worst images, no image twice.

    Images are ranked by falling score, equal scores by rising image id. The best are the first ranks, the worst the
    last, the median those around the middle rank. With fewer than three times ``per_kind`` images each kind gets a
    third of them, but at least one while there are any left: first the best, then the worst, then the median.

    Args:
        table: The matches of a result.
        class_name: A class of the table, or ``all``.
        per_kind: How many of each.

    Returns:
        The choices by kind and rank; none if no image has a score.
    """
    scores = image_scores(table, class_name)
    scored = np.flatnonzero(~np.isnan(scores))
    order = scored[np.lexsort((table.image_ids[scored], -scores[scored]))]
    count = min(per_kind, max(len(order) // 3, 1))
    ranks = list(range(len(order)))
    best = ranks[:count]
    worst = ranks[count:][-count:]
    between = ranks[count : len(ranks) - count]
    start = (len(between) - count) // 2
    chosen = {'best': best, 'median': between[max(start, 0) : max(start, 0) + count], 'worst': worst}
    return [
        Choice(kind, int(table.image_ids[order[rank]]), float(scores[order[rank]]), rank + 1, len(order))
        for kind in KINDS
        for rank in chosen[kind]
    ]


def _class_scores(matches: ClassMatches) -> np.ndarray:
    """``(I,)`` float64, NaN for images without an instance of the class."""
    scores = np.full(len(matches.instances), np.nan)
    by_image = np.argsort(matches.image, kind='stable')  # within an image, detections stay best first
    bounds = np.searchsorted(matches.image[by_image], np.arange(len(scores) + 1))
    for row in np.flatnonzero(matches.instances):
        own = by_image[bounds[row] : bounds[row + 1]]
        scores[row] = _average_precision(matches.outcome[:, own], int(matches.instances[row]))
    return scores


def _average_precision(outcome: np.ndarray, instances: int) -> float:
    """COCO's interpolated average precision over all thresholds, from outcomes ``(T, D)`` best score first."""
    found = np.cumsum(outcome == FOUND, axis=1)
    counted = np.cumsum(outcome != IGNORED, axis=1)
    precision = found / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, best in zip(found / instances, envelope, strict=True):
        reached = np.searchsorted(recall, RECALL_THRESHOLDS)
        total += best[reached[reached < len(best)]].sum()
    return total / (len(RECALL_THRESHOLDS) * len(outcome))
