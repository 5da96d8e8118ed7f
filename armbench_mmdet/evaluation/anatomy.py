"""The anatomy of a result: how instances are missed, what each kind of error costs, which labels may be wrong; and what
a robot can expect that runs at one score threshold, or picks the surest masks in turn.

Error rates are those of Hoover et al. (PAMI 1996), the kinds those of TIDE (Bolya et al., ECCV 2020), LRP is that of
Oksuz et al. (ECCV 2018), on masks at IoU 0.5. Every definition is in docs/evaluation.md.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation import result
from armbench_mmdet.evaluation.matches import FOUND, IGNORED, MISSED, ClassMatches, MatchTable, matched
from armbench_mmdet.evaluation.protocol import SCORE_THRESHOLD, Common, Matching
from armbench_mmdet.jit import compiled, map_threads

VERDICTS = ('detected', 'over_segmented', 'under_segmented', 'missed')
OVERLAP = 0.5
IOU, BACKGROUND_IOU = 0.5, 0.1
MOST_SUSPECTS = 20
BINS, CURVE = 10, np.linspace(0.05, 0.95, 19)
FIRST, COVERED, GRID = (1, 3, 5), 0.25, 64
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(1, 6)
"""As the fields of :class:`~armbench_mmdet.evaluation.result.ErrorCosts`."""


def segmentation_errors(matching: Matching) -> dict[str, result.SegmentationErrors]:
    """The share of each class's instances under each verdict on masks, None without instances, and their number."""
    counted, rates = np.where(matching.crowd, -1, matching.truth.kind), {}
    decided = verdicts(matching)
    for kind, name in enumerate(matching.classes):
        counts = np.bincount(decided[counted == kind], minlength=len(VERDICTS)).tolist()
        shares = [count / sum(counts) if sum(counts) else None for count in counts]
        rates[name] = result.SegmentationErrors(**dict(zip(VERDICTS, shares, strict=True)), instances=sum(counts))
    return rates


def verdicts(matching: Matching) -> np.ndarray:
    """``(G,) int64``, the verdict on each annotation, crowds not looked at, as its place in ``VERDICTS``."""
    common, sure = matching.common, np.flatnonzero(matching.found.scores >= SCORE_THRESHOLD)
    counts = np.diff(common.own[sure])[:, 0]
    d = np.repeat(sure, counts)
    g = np.arange(len(d)) + np.repeat(common.own[sure, 0] - np.cumsum(counts) + counts, counts)
    d, g = d[~matching.crowd[g]], g[~matching.crowd[g]]
    pair = common.offsets[d] + g
    is_inside = common.shared[pair] > OVERLAP * common.found_sizes[d]
    is_covered = common.shared[pair] > OVERLAP * common.truth_sizes[g]
    is_merging = np.bincount(d[is_covered], minlength=len(common.own)) > 1
    is_detected = np.zeros(len(matching.crowd), bool)
    is_detected[g[common.ious[pair] > IOU]] = True
    decided = np.where(is_detected, VERDICTS.index('detected'), VERDICTS.index('missed'))
    merged = g[is_covered & is_merging[d]]
    decided[merged[~is_detected[merged]]] = VERDICTS.index('under_segmented')
    inside = np.flatnonzero(is_inside & ~is_detected[g])
    inside = inside[np.argsort(g[inside], kind='stable')]
    for own in np.split(inside, np.flatnonzero(np.diff(g[inside])) + 1):
        if len(own) > 1 and _share_covered(matching, g[own[0]], d[own]) > OVERLAP:
            decided[g[own[0]]] = VERDICTS.index('over_segmented')
    return decided


def _share_covered(matching: Matching, instance: int, parts: np.ndarray) -> float:
    """The share of an annotation that some detections cover together."""
    target = matching.rle(matching.truth, instance)
    whole = mask_api.merge([matching.rle(matching.found, d) for d in parts.tolist()])
    return float(mask_api.area(mask_api.merge([whole, target], intersect=True))) / max(mask_api.area(target), 1)


def error_anatomy(matching: Matching) -> result.Anatomy:
    """The anatomy of a model's errors, of masks that are held against all classes."""
    errors = _Errors(matching)
    suspects, total = errors.suspects()
    return result.Anatomy(
        costs=errors.costs(), lrp=errors.lrp(), confusion=errors.confusion(), suspects=suspects, suspected=total
    )


class _Errors:
    """D detections and G instances at IoU 0.5, and what each detection overlaps most, in its own and other classes."""

    def __init__(self, matching: Matching) -> None:
        self.matching, self.found, crowd = matching, matching.found, matching.crowd
        self.counts = np.bincount(matching.truth.kind[~crowd], minlength=len(matching.classes))  # (C,), instances
        (self.outcome,), (self.owner,) = matched(matching.common, crowd, crowd, np.array([IOU]))
        self.outcome[self.counts[self.found.kind] == 0] = IGNORED  # of a class without instances
        ious, nearest = np.zeros((3, len(self.outcome))), np.full((2, len(self.outcome)), -1)
        _nearest(matching.common, crowd, self.owner, ious, nearest)
        self.own, self.other, self.right = ious  # (D,) float64, largest IoUs; that with the instance that it has
        self.own_at, self.other_at = nearest  # (D,) int64, the instances of the first two, or -1
        self.is_near = (self.own >= BACKGROUND_IOU) & (self.own < IOU)
        is_sure = self.found.scores >= SCORE_THRESHOLD
        self.is_right, self.is_wrong = is_sure & (self.outcome == FOUND), is_sure & (self.outcome == MISSED)  # (D,)
        # (G + 1,) bool, instances that no sure one has; the last stands for none.
        self.is_free = np.append(~np.append(is_sure, False)[self.owner] & ~crowd, False)

    def surest(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Of some detections the surest for each instance, which ``at`` names; of equal ones the first."""
        rows = rows[np.argsort(-self.found.scores[rows], kind='stable')]
        return rows[np.unique(at[rows], return_index=True)[1]]

    def costs(self) -> dict[str, result.ErrorCosts]:
        found, counts, truth_kind = self.found, self.counts, self.matching.truth.kind
        holds = [self.outcome != MISSED, self.is_near, self.other >= IOU, self.own >= IOU, self.other <= BACKGROUND_IOU]
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
                values.append(np.nan_to_num(one.curves(np.ones((1, 1), np.int32)).mean()))
            return np.array([*values, np.mean(values)])

        now = precisions(self.outcome, found.kind, counts)
        is_missed = (self.owner < 0) & ~self.matching.crowd
        gains = []
        for kind in range(CLASSIFICATION, BACKGROUND + 1):
            outcome, classes = np.where(kinds == kind, IGNORED, self.outcome).astype(np.int8), found.kind.copy()
            if kind in (LOCALISATION, CLASSIFICATION):
                at = self.own_at if kind == LOCALISATION else self.other_at
                rows = np.flatnonzero((kinds == kind) & (self.owner[at] < 0))
                right = self.surest(rows, at)
                outcome[right], classes[right] = FOUND, truth_kind[at[right]]
                is_missed[at[rows]] = False
            gains.append(precisions(outcome, classes, counts) - now)
        left = counts - np.bincount(truth_kind[is_missed], minlength=len(counts))
        gains.append(precisions(self.outcome, found.kind, left) - now)
        names = [*(self.matching.classes[kind] for kind in annotated), result.MEAN]
        return {name: result.ErrorCosts(*own) for name, own in zip(names, np.transpose(gains).tolist(), strict=True)}

    def lrp(self) -> dict[str, result.LRP]:
        """The least over thresholds, of each class with instances."""
        least = {}
        for name, order, instances in zip(self.matching.classes, self.matching.orders, self.counts, strict=True):
            if instances:
                rows = order[self.outcome[order] != IGNORED]
                scores, is_found = self.found.scores[rows], self.outcome[rows] == FOUND
                found, taken = np.append(0, np.cumsum(is_found)), np.arange(len(rows) + 1)
                apart = np.append(0.0, np.cumsum(np.where(is_found, 1 - self.right[rows], 0)))
                errors = (apart / (1 - IOU) + taken + instances - 2 * found) / (taken + instances - found)
                errors[1:-1][scores[1:] == scores[:-1]] = np.inf  # equal scores pass a threshold together
                best = int(errors.argmin())
                least[name] = result.LRP(error=float(errors[best]), threshold=float(scores[best - 1]) if best else None)
        return least

    def confusion(self) -> dict[str, dict[str, int]]:
        kind, size = self.found.kind, len(self.counts)
        table = np.zeros((size + 1, size + 1), np.int64)
        table[range(size), range(size)] = np.bincount(kind[self.is_right], minlength=size)
        rows = np.flatnonzero(self.is_wrong & (self.other >= IOU) & self.is_free[self.other_at])
        confused = self.surest(rows, self.other_at)
        np.add.at(table, (self.matching.truth.kind[self.other_at[confused]], kind[confused]), 1)
        table[:size, size] = self.counts - table[:size].sum(1)
        judged = np.bincount(kind[self.is_wrong | self.is_right], minlength=size)
        table[size, :size] = judged - table[:, :size].sum(0)
        known = {name: number for number, name in enumerate(self.matching.classes) if self.counts[number]}
        return {
            row: {column: int(table[i, j]) for column, j in {**known, 'missed': size}.items() if (i, j) != (size, size)}
            for row, i in {**known, 'background': size}.items()
        }

    def suspects(self) -> tuple[list[result.Suspect], int]:
        """The most suspicious, by falling score of the detection that disagrees, and how many there are."""
        matching, is_other = self.matching, self.other >= IOU
        at, iou = np.where(is_other, self.other_at, self.own_at), np.where(is_other, self.other, self.own)
        contradicting = self.surest(np.flatnonzero(self.is_wrong & (is_other | self.is_near) & self.is_free[at]), at)
        alone = np.flatnonzero(self.is_wrong & (np.maximum(self.own, self.other) < BACKGROUND_IOU))
        rows = np.sort(np.concatenate([contradicting, alone]))
        rows = rows[np.argsort(-self.found.scores[rows], kind='stable')]
        suspects = []
        for d in rows[:MOST_SUSPECTS].tolist():
            image = matching.ground_truth.images[int(matching.image_ids[self.found.image[d]])]
            is_annotated = iou[d] >= BACKGROUND_IOU
            suspects.append(
                result.Suspect(
                    fault=('class' if is_other[d] else 'outline') if is_annotated else 'not annotated',
                    image_id=image.id,
                    image=image.file_name,
                    annotation_id=int(matching.ground_truth.ids[matching.truth.place[at[d]]]) if is_annotated else None,
                    annotated=matching.classes[matching.truth.kind[at[d]]] if is_annotated else None,
                    predicted=matching.classes[self.found.kind[d]],
                    score=float(self.found.scores[d]),
                    iou=float(iou[d]),
                    box=mask_api.toBbox(matching.rle(self.found, d)).tolist(),
                )
            )
        return suspects, len(rows)


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


def operations(matching: Matching, table: MatchTable, of_val: Mapping[str, float]) -> dict[str, result.Operation]:
    """The operation of each class with instances; ``of_val`` has the threshold that was best on ``val``, by class."""
    found = {}
    for order, (name, one) in zip(matching.orders, table.classes.items(), strict=True):
        outcome, instances = one.outcome[0], int(one.instances.sum())  # at IoU 0.5
        if instances:
            scores = matching.found.scores[order[outcome != IGNORED]]
            is_found = outcome[outcome != IGNORED] == FOUND
            found[name] = _operation(is_found, scores, instances, of_val.get(name))
    return found


def _operation(is_found: np.ndarray, scores: np.ndarray, instances: int, of_val: float | None) -> result.Operation:
    """Of detections by falling score, ``(D,) bool`` and ``(D,) float64``."""
    hits = np.concatenate([[0], np.cumsum(is_found)])

    def point(threshold: float) -> result.OperatingPoint:
        detections = int(np.searchsorted(-scores, -threshold, side='right'))
        found = int(hits[detections])
        return result.OperatingPoint(
            threshold=float(threshold),
            precision=found / detections if detections else None,
            recall=found / instances,
            f1=2 * found / (detections + instances),
        )

    is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # equal scores pass a threshold together
    f1 = np.where(is_last, 2 * hits[1:] / (np.arange(1, len(scores) + 1) + instances), -1.0)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    reliability = []
    for own in (bins == number for number in np.intersect1d(bins, range(BINS))):
        score, precision = float(scores[own].mean()), float(is_found[own].mean())
        reliability.append(result.ReliabilityBin(score=score, precision=precision, detections=int(own.sum())))
    error = sum(one.detections * abs(one.score - one.precision) for one in reliability) / max(len(scores), 1)
    return result.Operation(
        best=point(scores[int(f1.argmax())]) if len(scores) else None,
        of_val=None if of_val is None else point(of_val),
        curve=[point(threshold) for threshold in CURVE],
        calibration_error=error if len(scores) else None,
        reliability=reliability,
    )


def pick_scores(matching: Matching, class_name: str, score: float = SCORE_THRESHOLD) -> result.PickScores | None:
    """The scores of picks of one class, by its masks; None without instances of it.

    Predictions with at least this score are counted.
    """
    is_picked, found, truth = np.array(matching.classes) == class_name, matching.found, matching.truth
    is_object = is_picked[truth.kind] & ~matching.crowd
    objects = np.bincount(truth.image[is_object], minlength=len(matching.image_ids))
    is_counted = is_picked[found.kind] & (found.scores >= score)
    predictions = np.bincount(found.image[is_counted], minlength=len(objects))
    images, kind = np.flatnonzero(objects), int(is_picked.argmax())
    if not images.size:
        return None
    wanted = np.minimum(objects[images], FIRST[-1])
    successes = np.array(map_threads(lambda image: _successes(matching, image, kind, is_object), images.tolist()))
    shares = {k: (successes[:, :k] & (np.arange(k) < wanted[:, None])).sum(1) / np.minimum(wanted, k) for k in FIRST}
    return result.PickScores(
        **{f'success_{k}': float(share.mean()) for k, share in shares.items()},
        count_error=float(abs(predictions - objects).mean()),
        count_score=score,
        images=len(images),
    )


def _successes(matching: Matching, image: int, kind: int, is_object: np.ndarray) -> np.ndarray:
    """``(5,) bool``, whether each of the first picks in an image succeeds."""
    group = image * len(matching.classes) + kind
    rows, own = (np.arange(*each.starts[group : group + 2]) for each in (matching.found, matching.truth))
    rows, height = rows[: FIRST[-1]], matching.sizes[image][0]
    shared = matching.common.shared[matching.common.offsets[rows][:, None] + own]
    is_touched = shared.any(0)
    own, shared = own[is_touched], shared[:, is_touched]
    found, truth = matching.runs(matching.found, rows), matching.runs(matching.truth, own)
    is_covered = (shared > COVERED * truth.areas) & is_object[own]
    is_free, successes = is_object[own], np.zeros(FIRST[-1], bool)
    for d in range(len(rows)):
        switches = found.switches[found.starts[d] : found.starts[d + 1]]
        pixel = _most_interior(switches, height, found.boxes[d]) if found.areas[d] else -1
        for g in np.flatnonzero(is_free & (shared[d] > 0)).tolist():
            under = truth.switches[truth.starts[g] : truth.starts[g + 1]]
            if np.searchsorted(under, pixel, side='right') % 2:
                successes[d] = is_covered[d].sum() == is_covered[d, g]  # no other
                is_free[g] &= not successes[d]
                break
    return successes


def _most_interior(switches: np.ndarray, height: int, box: np.ndarray) -> int:
    """The position of the most interior point of a mask that has some pixels."""
    x, y, right, bottom = box.tolist()
    pitch = -(-max(right - x, bottom - y) // GRID)
    grid = np.zeros((-(-(right - x) // pitch) + 2, -(-(bottom - y) // pitch) + 2), np.uint8)
    _fill(switches, height, x, y, pitch, grid)
    distances = cv2.distanceTransform(grid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    place = int(np.rint(distances * distances).argmax())  # OpenCV's last digits depend on where the grid lies in memory
    column, row = place // grid.shape[1] - 1, place % grid.shape[1] - 1
    return (column * pitch + x) * height + row * pitch + y if place else int(switches[0])


@compiled
def _fill(switches: np.ndarray, height: int, left: int, top: int, pitch: int, grid: np.ndarray) -> None:
    """Mark the points of a mask on a grid ``(w, h) uint8`` with a border of zeros."""
    passed = 0
    for i in range(grid.shape[0] - 2):
        for j in range(grid.shape[1] - 2):
            while passed < switches.size and switches[passed] <= (left + i * pitch) * height + top + j * pitch:
                passed += 1
            grid[i + 1, j + 1] = passed % 2
