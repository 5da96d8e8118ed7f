"""The anatomy of errors: what each kind of error costs, which classes are confused, which labels may be wrong.

**Kinds of errors** are those of TIDE (Bolya et al., ECCV 2020) on masks, at most 100 detections of a class in an image.
A detection without an instance of its own at IoU 0.5 has one of them, the first that holds; IoU with its own class is
*a*, with another class *b*, the largest in the image each:

- **localisation**: 0.1 ≤ *a* < 0.5;
- **classification**: *b* ≥ 0.5;
- **duplicate**: *a* ≥ 0.5, on an instance that a surer detection has;
- **background**: neither *a* nor *b* is above 0.1;
- **both**: what is left, 0.1 < *b* < 0.5.

An instance that no detection has, and that no error of classification or localisation overlaps most, is **missed**.
What a kind costs is the gain in AP at IoU 0.5 if all of its errors were corrected, all others left: localisation and
classification become right, the surest one for each free instance, the others are taken out, as are duplicates,
background and both; missed instances no longer count.

**LRP** is the optimal localisation recall precision error at IoU 0.5 (Oksuz et al., ECCV 2018), the least over score
thresholds of ``(Σ (1 − IoU) / 0.5 + FP + FN) / (TP + FP + FN)``, the sum over TP.

**Confusion and suspected labels** go by detections with a score of at least 0.5. Those that have an instance of their
class are right. Of the others, the surest that overlaps a free instance of another class by 0.5 is confused with it.
A label is suspected where a detection overlaps no annotation by 0.1 (``not annotated``), or where the surest one that
overlaps a free instance most is of another class, IoU from 0.5, or of its class with another ``outline``, IoU below.
"""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.matches import FOUND, IGNORED, MISSED, ClassMatches, matched, precision_at_recall
from armbench_mmdet.evaluation.protocol import Common, Matching
from armbench_mmdet.evaluation.result import LRP, MEAN, Anatomy, ErrorCosts, Suspect
from armbench_mmdet.evaluation.strata import SCORE_THRESHOLD
from armbench_mmdet.jit import compiled
from armbench_mmdet.masks.runs import run_lengths

IOU, BACKGROUND_IOU = 0.5, 0.1
MOST_SUSPECTS = 20
LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND, BOTH = range(1, 6)


class _Overlaps(NamedTuple):
    """The D detections at IoU 0.5, and what each overlaps most.

    Attributes:
        outcome: ``(D,) int8``; detections of a class without instances are IGNORED.
        owner: ``(G,) int64``, the detection that has each instance, or -1.
        own: ``(D,) float64``, the largest IoU with an instance of the detection's class.
        own_at: ``(D,) int64``, that instance, or -1.
        other: The same with the other classes.
        other_at: The same.
    """

    outcome: np.ndarray
    owner: np.ndarray
    own: np.ndarray
    own_at: np.ndarray
    other: np.ndarray
    other_at: np.ndarray


def error_anatomy(matching: Matching) -> Anatomy:
    """The anatomy of a model's errors.

    Args:
        matching: Of masks.
    """
    counts = np.bincount(matching.truth.kind[~matching.crowd], minlength=len(matching.classes))
    overlaps = _overlaps(matching, counts)
    suspects, total = _suspects(matching, overlaps)
    return Anatomy(
        costs=_costs(matching, overlaps, counts),
        lrp=_lrp(matching, overlaps, counts),
        confusion=_confusion(matching, overlaps, counts),
        suspects=suspects,
        suspected=total,
    )


def _overlaps(matching: Matching, counts: np.ndarray) -> _Overlaps:
    outcome, owner = (part[0] for part in matched(matching, matching.crowd, np.array([IOU])))
    outcome[counts[matching.found.kind] == 0] = IGNORED
    ious, nearest = np.zeros((2, len(outcome))), np.full((2, len(outcome)), -1)
    _nearest(matching.across, matching.crowd, matching.found.kind, matching.truth.kind, ious, nearest)
    return _Overlaps(outcome, owner, ious[0], nearest[0], ious[1], nearest[1])


@compiled
def _nearest(
    common: Common,
    crowd: np.ndarray,
    found_kind: np.ndarray,
    truth_kind: np.ndarray,
    ious: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Write the largest IoU and its instance, in the first row of the same class, in the second of another."""
    for group in range(common.starts.size - 1):
        at = common.starts[group]
        for d in range(common.found_starts[group], common.found_starts[group + 1]):
            for g in range(common.truth_starts[group], common.truth_starts[group + 1]):
                shared = common.values[at]
                if shared > 0 and not crowd[g]:
                    iou = shared / (common.found_sizes[d] + common.truth_sizes[g] - shared)
                    row = int(found_kind[d] != truth_kind[g])
                    if iou > ious[row, d]:
                        ious[row, d], nearest[row, d] = iou, g
                at += 1


def _kinds_of_errors(overlaps: _Overlaps) -> np.ndarray:
    """``(D,) int64``, the kind of each detection's error; 0 for what is right or does not count."""
    own, other = overlaps.own, overlaps.other
    holds = [own >= IOU, own >= BACKGROUND_IOU, other >= IOU, other > BACKGROUND_IOU]
    kinds = np.select(
        [holds[1] & ~holds[0], holds[2], holds[0], ~holds[3]],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        BOTH,
    )
    return np.where(overlaps.outcome == MISSED, kinds, 0)


def _costs(matching: Matching, overlaps: _Overlaps, counts: np.ndarray) -> dict[str, ErrorCosts]:
    kinds = _kinds_of_errors(overlaps)
    order = np.argsort(-matching.scores, kind='stable')

    def precisions(outcome: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The AP of each class and their mean; NaN without instances, 0 where none is left."""
        values = np.full(len(counts) + 1, np.nan)
        for kind in np.flatnonzero(is_annotated).tolist():
            own = order[classes[order] == kind]
            one = ClassMatches(np.zeros(len(own), np.int32), outcome[None, own], counts[kind : kind + 1])
            values[kind] = np.nan_to_num(precision_at_recall(one).mean())
        values[-1] = values[:-1][is_annotated].mean() if is_annotated.any() else np.nan
        return values

    is_annotated = counts > 0
    without = [np.where(kinds == kind, IGNORED, overlaps.outcome).astype(np.int8) for kind in range(BOTH + 1)]
    classes = {kind: matching.found.kind.copy() for kind in (LOCALISATION, CLASSIFICATION)}
    is_missed = (overlaps.owner < 0) & ~matching.crowd
    for kind, at in ((LOCALISATION, overlaps.own_at), (CLASSIFICATION, overlaps.other_at)):
        rows = np.flatnonzero(kinds == kind)
        rows = rows[overlaps.owner[at[rows]] < 0]
        right = _surest(matching, rows, at)
        without[kind][right] = FOUND
        classes[kind][right] = matching.truth.kind[at[right]]
        is_missed[at[rows]] = False
    missed = np.bincount(matching.truth.kind[is_missed], minlength=len(counts))
    now = precisions(overlaps.outcome, matching.found.kind, counts)
    gains = {
        'missed': precisions(overlaps.outcome, matching.found.kind, counts - missed) - now,
        **{
            name: precisions(without[kind], classes.get(kind, matching.found.kind), counts) - now
            for name, kind in _NAMES.items()
        },
    }
    return {
        name: ErrorCosts(**{kind: float(gain[number]) for kind, gain in gains.items()})
        for number, name in enumerate([*matching.classes, MEAN])
        if not np.isnan(now[number])
    }


_NAMES = {
    'classification': CLASSIFICATION,
    'localisation': LOCALISATION,
    'both': BOTH,
    'duplicate': DUPLICATE,
    'background': BACKGROUND,
}


def _surest(matching: Matching, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of some detections the surest for each instance, which ``at`` names; of equal ones the first."""
    rows = rows[np.argsort(-matching.scores[rows], kind='stable')]
    return rows[np.unique(at[rows], return_index=True)[1]]


def _lrp(matching: Matching, overlaps: _Overlaps, counts: np.ndarray) -> dict[str, LRP]:
    ious = _ious_of_found(matching, overlaps)
    return {
        name: _optimal_lrp(overlaps.outcome[order], ious[order], matching.scores[order], int(counts[kind]))
        for kind, (name, order) in enumerate(zip(matching.classes, matching.orders, strict=True))
        if counts[kind]
    }


def _ious_of_found(matching: Matching, overlaps: _Overlaps) -> np.ndarray:
    """``(D,) float64``, the IoU of each detection with its own instance; 0 without one."""
    common, g = matching.common, np.flatnonzero((overlaps.owner >= 0) & ~matching.crowd)
    d, group = overlaps.owner[g], matching.truth.image[g] * len(matching.classes) + matching.truth.kind[g]
    first, instances = common.truth_starts[group], np.diff(common.truth_starts)[group]
    shared = common.values[common.starts[group] + (d - common.found_starts[group]) * instances + g - first]
    ious = np.zeros(len(overlaps.outcome))
    ious[d] = shared / (common.found_sizes[d] + common.truth_sizes[g] - shared)
    return ious


def _optimal_lrp(outcome: np.ndarray, ious: np.ndarray, scores: np.ndarray, instances: int) -> LRP:
    """Of detections by falling score, of a class with instances."""
    counted = outcome != IGNORED
    outcome, ious, scores = outcome[counted], ious[counted], scores[counted]
    found = np.concatenate([[0], np.cumsum(outcome == FOUND)])
    apart = np.concatenate([[0.0], np.cumsum(np.where(outcome == FOUND, 1 - ious, 0))])
    taken = np.arange(len(found))
    errors = (apart / (1 - IOU) + taken + instances - 2 * found) / (taken + instances - found)
    errors[1:-1][scores[1:] == scores[:-1]] = np.inf  # equal scores pass a threshold together
    best = int(errors.argmin())
    return LRP(
        error=float(errors[best]),
        threshold=float(scores[best - 1]) if best else None,
        localisation=float(apart[best] / found[best]) if found[best] else None,
        false_positives=float(1 - found[best] / best) if best else None,
        false_negatives=float(1 - found[best] / instances),
    )


def _free(matching: Matching, overlaps: _Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """``(D,) bool``, sure detections that are wrong, and ``(G,) bool``, instances that no sure one has."""
    is_sure = matching.scores >= SCORE_THRESHOLD
    has_sure = (overlaps.owner >= 0) & is_sure[overlaps.owner] if len(is_sure) else np.zeros(len(matching.crowd), bool)
    return is_sure & (overlaps.outcome == MISSED), ~has_sure & ~matching.crowd


def _confusion(matching: Matching, overlaps: _Overlaps, counts: np.ndarray) -> dict[str, dict[str, int]]:
    is_wrong, is_free = _free(matching, overlaps)
    is_right = (matching.scores >= SCORE_THRESHOLD) & (overlaps.outcome == FOUND)
    size = len(counts)
    table = np.zeros((size + 1, size + 1), np.int64)
    table[range(size), range(size)] = np.bincount(matching.found.kind[is_right], minlength=size)
    rows = np.flatnonzero(is_wrong & (overlaps.other >= IOU))
    confused = _surest(matching, rows[is_free[overlaps.other_at[rows]]], overlaps.other_at)
    np.add.at(table, (matching.truth.kind[overlaps.other_at[confused]], matching.found.kind[confused]), 1)
    table[:size, size] = counts - table[:size].sum(1)
    table[size, :size] = np.bincount(matching.found.kind[is_wrong | is_right], minlength=size) - table[:, :size].sum(0)
    known = {name: number for number, name in enumerate(matching.classes) if counts[number]}
    return {
        row: {column: int(table[i, j]) for column, j in {**known, 'missed': size}.items() if (i, j) != (size, size)}
        for row, i in {**known, 'background': size}.items()
    }


def _suspects(matching: Matching, overlaps: _Overlaps) -> tuple[list[Suspect], int]:
    """The most suspicious, by falling score of the detection that disagrees, and how many there are."""
    is_wrong, is_free = _free(matching, overlaps)
    is_other = overlaps.other >= IOU
    at, iou = np.where(is_other, (overlaps.other_at, overlaps.other), (overlaps.own_at, overlaps.own))
    at = at.astype(np.int64)
    rows = np.flatnonzero(is_wrong & (is_other | (overlaps.own >= BACKGROUND_IOU) & (overlaps.own < IOU)))
    contradicting = _surest(matching, rows[is_free[at[rows]]], at)
    alone = np.flatnonzero(is_wrong & (np.maximum(overlaps.own, overlaps.other) < BACKGROUND_IOU))
    rows = np.sort(np.concatenate([contradicting, alone]))
    rows = rows[np.argsort(-matching.scores[rows], kind='stable')]
    suspects = []
    for d in rows[:MOST_SUSPECTS].tolist():
        detection = matching.detections[matching.found.place[d]]
        image = matching.images[detection['image_id']]
        predicted = matching.classes[matching.found.kind[d]]
        is_annotated = iou[d] >= BACKGROUND_IOU
        annotation = matching.annotations[matching.truth.place[at[d]]] if is_annotated else {}
        rle = run_lengths(detection['segmentation'], image['height'], image['width'])
        suspects.append(
            Suspect(
                fault=('class' if is_other[d] else 'outline') if is_annotated else 'not annotated',
                image_id=image['id'],
                image=image.get('file_name'),
                annotation_id=annotation.get('source_id', annotation.get('id')),
                annotated=matching.classes[matching.truth.kind[at[d]]] if is_annotated else None,
                predicted=predicted,
                score=float(matching.scores[d]),
                iou=float(iou[d]),
                box=mask_api.toBbox(rle).tolist(),
            )
        )
    return suspects, len(rows)
