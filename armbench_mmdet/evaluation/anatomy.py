"""The anatomy of errors: what each kind of error costs, which classes are confused, which labels may be wrong.

The kinds are those of TIDE (Bolya et al., ECCV 2020), LRP is that of Oksuz et al. (ECCV 2018), on masks at IoU 0.5.
Every definition is in docs/evaluation.md.
"""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.matches import FOUND, IGNORED, MISSED, ClassMatches, matched, precision_at_recall
from armbench_mmdet.evaluation.protocol import Common, Matching
from armbench_mmdet.evaluation.result import LRP, MEAN, Anatomy, ErrorCosts, Suspect
from armbench_mmdet.evaluation.strata import SCORE_THRESHOLD
from armbench_mmdet.jit import compiled

IOU, BACKGROUND_IOU = 0.5, 0.1
MOST_SUSPECTS = 20
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(1, 6)
"""As the fields of :class:`~armbench_mmdet.evaluation.result.ErrorCosts`."""


class _Overlaps(NamedTuple):
    """The D detections and G instances at IoU 0.5, and what each detection overlaps most."""

    counts: np.ndarray  # (C,) int64, instances of each class
    outcome: np.ndarray  # (D,) int8; detections of a class without instances are IGNORED
    owner: np.ndarray  # (G,) int64, the detection that has each instance, or -1
    own: np.ndarray  # (D,) float64, the largest IoU with an instance of the detection's class
    other: np.ndarray  # the same with the other classes
    own_at: np.ndarray  # (D,) int64, the instance of the first, or -1
    other_at: np.ndarray  # of the second
    is_wrong: np.ndarray  # (D,) bool, sure detections that are wrong
    is_free: np.ndarray  # (G + 1,) bool, instances that no sure one has; the last stands for none


def error_anatomy(matching: Matching) -> Anatomy:
    """The anatomy of a model's errors, of masks that are held against all classes."""
    found, crowd = matching.found, matching.crowd
    counts = np.bincount(matching.truth.kind[~crowd], minlength=len(matching.classes))
    (outcome,), (owner,) = matched(matching.common, crowd, crowd, np.array([IOU]))
    outcome[counts[found.kind] == 0] = IGNORED
    ious, nearest = np.zeros((3, len(outcome))), np.full((2, len(outcome)), -1)
    _nearest(matching.common, crowd, owner, ious, nearest)
    is_sure = found.scores >= SCORE_THRESHOLD
    is_free = np.append(~np.append(is_sure, False)[owner] & ~crowd, False)
    most = ious[0], ious[1], nearest[0], nearest[1]
    overlaps = _Overlaps(counts, outcome, owner, *most, is_sure & (outcome == MISSED), is_free)
    suspects, total = _suspects(matching, overlaps)
    orders = zip(matching.classes, matching.orders, counts.tolist(), strict=True)
    return Anatomy(
        costs=_costs(matching, overlaps),
        lrp={name: _lrp(outcome[own], ious[2, own], found.scores[own], count) for name, own, count in orders if count},
        confusion=_confusion(matching, overlaps),
        suspects=suspects,
        suspected=total,
    )


@compiled
def _nearest(common: Common, crowd: np.ndarray, owner: np.ndarray, ious: np.ndarray, nearest: np.ndarray) -> None:
    """Write the largest IoU and its instance, of the same class, then of another; and the IoU with what each has."""
    for d in range(common.found_sizes.size):
        for g in range(common.near[d, 0], common.near[d, 1]):
            iou = common.ious[common.offsets[d] + g]
            if iou > 0 and not crowd[g]:
                row = int(g < common.own[d, 0] or g >= common.own[d, 1])
                if iou > ious[row, d]:
                    ious[row, d], nearest[row, d] = iou, g
                if owner[g] == d:
                    ious[2, d] = iou


def _costs(matching: Matching, overlaps: _Overlaps) -> dict[str, ErrorCosts]:
    own, other, found, counts = overlaps.own, overlaps.other, matching.found, overlaps.counts
    is_near = (own >= BACKGROUND_IOU) & (own < IOU)
    holds = [overlaps.outcome != MISSED, is_near, other >= IOU, own >= IOU, other <= BACKGROUND_IOU]
    kinds = np.select(holds, [0, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH)
    order = np.argsort(-found.scores, kind='stable')
    annotated = np.flatnonzero(counts).tolist()
    if not annotated:
        return {}

    def precisions(outcome: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The AP of each class with instances and their mean; 0 where none is left."""
        values = []
        for kind in annotated:
            rows = order[classes[order] == kind]
            one = ClassMatches(np.zeros(len(rows), np.int32), outcome[None, rows], counts[kind : kind + 1])
            values.append(np.nan_to_num(precision_at_recall(one).mean()))
        return np.array([*values, np.mean(values)])

    now = precisions(overlaps.outcome, found.kind, counts)
    is_missed = (overlaps.owner < 0) & ~matching.crowd
    gains = []
    for kind in range(CLASSIFICATION, BACKGROUND + 1):
        outcome, classes = np.where(kinds == kind, IGNORED, overlaps.outcome).astype(np.int8), found.kind.copy()
        if kind in (LOCALISATION, CLASSIFICATION):
            at = overlaps.own_at if kind == LOCALISATION else overlaps.other_at
            rows = np.flatnonzero((kinds == kind) & (overlaps.owner[at] < 0))
            right = _surest(matching, rows, at)
            outcome[right], classes[right] = FOUND, matching.truth.kind[at[right]]
            is_missed[at[rows]] = False
        gains.append(precisions(outcome, classes, counts) - now)
    left = counts - np.bincount(matching.truth.kind[is_missed], minlength=len(counts))
    gains.append(precisions(overlaps.outcome, found.kind, left) - now)
    names = [*(matching.classes[kind] for kind in annotated), MEAN]
    return {name: ErrorCosts(*values) for name, values in zip(names, np.transpose(gains).tolist(), strict=True)}


def _surest(matching: Matching, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of some detections the surest for each instance, which ``at`` names; of equal ones the first."""
    rows = rows[np.argsort(-matching.found.scores[rows], kind='stable')]
    return rows[np.unique(at[rows], return_index=True)[1]]


def _lrp(outcome: np.ndarray, ious: np.ndarray, scores: np.ndarray, instances: int) -> LRP:
    """The least over thresholds, of detections by falling score."""
    scores, is_found = scores[outcome != IGNORED], outcome[outcome != IGNORED] == FOUND
    found = np.append(0, np.cumsum(is_found))
    apart = np.append(0.0, np.cumsum(np.where(is_found, 1 - ious[outcome != IGNORED], 0)))
    taken = np.arange(len(found))
    errors = (apart / (1 - IOU) + taken + instances - 2 * found) / (taken + instances - found)
    errors[1:-1][scores[1:] == scores[:-1]] = np.inf  # equal scores pass a threshold together
    best = int(errors.argmin())
    return LRP(error=float(errors[best]), threshold=float(scores[best - 1]) if best else None)


def _confusion(matching: Matching, overlaps: _Overlaps) -> dict[str, dict[str, int]]:
    is_right = (matching.found.scores >= SCORE_THRESHOLD) & (overlaps.outcome == FOUND)
    counts, size = overlaps.counts, len(overlaps.counts)
    table = np.zeros((size + 1, size + 1), np.int64)
    table[range(size), range(size)] = np.bincount(matching.found.kind[is_right], minlength=size)
    rows = np.flatnonzero(overlaps.is_wrong & (overlaps.other >= IOU) & overlaps.is_free[overlaps.other_at])
    confused = _surest(matching, rows, overlaps.other_at)
    np.add.at(table, (matching.truth.kind[overlaps.other_at[confused]], matching.found.kind[confused]), 1)
    table[:size, size] = counts - table[:size].sum(1)
    judged = np.bincount(matching.found.kind[overlaps.is_wrong | is_right], minlength=size)
    table[size, :size] = judged - table[:, :size].sum(0)
    known = {name: number for number, name in enumerate(matching.classes) if counts[number]}
    return {
        row: {column: int(table[i, j]) for column, j in {**known, 'missed': size}.items() if (i, j) != (size, size)}
        for row, i in {**known, 'background': size}.items()
    }


def _suspects(matching: Matching, overlaps: _Overlaps) -> tuple[list[Suspect], int]:
    """The most suspicious, by falling score of the detection that disagrees, and how many there are."""
    is_other = overlaps.other >= IOU
    at, iou = np.where(is_other, overlaps.other_at, overlaps.own_at), np.where(is_other, overlaps.other, overlaps.own)
    is_near = is_other | (overlaps.own >= BACKGROUND_IOU) & (overlaps.own < IOU)
    contradicting = _surest(matching, np.flatnonzero(overlaps.is_wrong & is_near & overlaps.is_free[at]), at)
    alone = np.flatnonzero(overlaps.is_wrong & (np.maximum(overlaps.own, overlaps.other) < BACKGROUND_IOU))
    rows = np.sort(np.concatenate([contradicting, alone]))
    rows = rows[np.argsort(-matching.found.scores[rows], kind='stable')]
    suspects = []
    for d in rows[:MOST_SUSPECTS].tolist():
        image = matching.ground_truth.images[int(matching.image_ids[matching.found.image[d]])]
        is_annotated = iou[d] >= BACKGROUND_IOU
        annotation_id = int(matching.ground_truth.ids[matching.truth.place[at[d]]]) if is_annotated else None
        suspects.append(
            Suspect(
                fault=('class' if is_other[d] else 'outline') if is_annotated else 'not annotated',
                image_id=image.id,
                image=image.file_name,
                annotation_id=annotation_id,
                annotated=matching.classes[matching.truth.kind[at[d]]] if is_annotated else None,
                predicted=matching.classes[matching.found.kind[d]],
                score=float(matching.found.scores[d]),
                iou=float(iou[d]),
                box=mask_api.toBbox(matching.rle(matching.found, d)).tolist(),
            )
        )
    return suspects, len(rows)
