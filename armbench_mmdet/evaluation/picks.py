"""Scores of picks: what a robot that acts on the surest masks, one after the other, would do.

Detections of the object class are picked by falling score; ground truth is its objects without crowds. A pick is aimed
at the most interior pixel of the predicted mask P: the one farthest from what is not P, of equals the first by column
and row. It *succeeds* if that pixel lies on an object that no pick before it succeeded on, and P covers no other
object H by more than a quarter: ``|P ∩ H| ≤ |H| / 4``.

*Success of the first k* is the mean, over images with objects, of the share of successes among the first
``min(k, objects)`` picks; picks that were not made have failed. The *count error* is the mean over all images of
``|predictions − objects|``, with the predictions of at least a certain score.
"""

import cv2
import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.evaluation.result import PickScores
from armbench_mmdet.masks.encode import decode_mask
from armbench_mmdet.masks.runs import run_lengths

FIRST = (1, 3, 5)
COVERED = 0.25
DEFAULT_SCORE = 0.5


def pick_scores(matching: Matching, class_name: str, score: float | None = None) -> PickScores | None:
    """The scores of picks of one class; None without instances of it.

    Args:
        matching: Of masks.
        class_name: The class that is picked.
        score: Predictions with at least this score are counted; None for 0.5.
    """
    if class_name not in matching.classes:
        return None
    kind = matching.classes.index(class_name)
    shares: dict[int, list[float]] = {k: [] for k in FIRST}
    errors, threshold = [], DEFAULT_SCORE if score is None else score
    for row, image_id in enumerate(matching.image_ids.tolist()):
        group = row * len(matching.classes) + kind
        found = slice(*matching.found.starts[group : group + 2])
        is_object = ~matching.crowd[slice(*matching.truth.starts[group : group + 2])]
        objects = int(is_object.sum())
        errors.append(abs(int((matching.scores[found] >= threshold).sum()) - objects))
        if objects:
            picks = _picks(matching, image_id, group, min(FIRST[-1], objects))
            for k in FIRST:
                wanted = min(k, objects)
                shares[k].append(sum(picks[:wanted]) / wanted)
    if not shares[FIRST[0]]:
        return None
    success = {f'success_{k}': float(np.mean(shares[k])) for k in FIRST}
    return PickScores(
        **success, count_error=float(np.mean(errors)), count_score=threshold, images=len(shares[FIRST[0]])
    )


def _picks(matching: Matching, image_id: int, group: int, most: int) -> list[bool]:
    """Whether each of the first picks succeeds."""
    first, last = matching.found.starts[group : group + 2].tolist()
    own = slice(*matching.truth.starts[group : group + 2])
    image = matching.images[image_id]
    size = image['height'], image['width']
    truth = [matching.annotations[place]['segmentation'] for place in matching.truth.place[own].tolist()]
    masks = [run_lengths(one, *size) for one in truth]
    is_free = ~matching.crowd[own]
    covered = matching.common.block(group) > COVERED * matching.common.truth_sizes[own]
    covered[:, matching.crowd[own]] = False
    result = []
    for number, place in enumerate(matching.found.place[first : min(last, first + most)].tolist()):
        bitmap = decode_mask(run_lengths(matching.detections[place]['segmentation'], *size))
        if not bitmap.any():
            result.append(False)
            continue
        pixel = _pixel(most_interior(bitmap), *size)
        is_hit = (mask_api.iou([pixel], masks, [1] * len(masks))[0] > 0) & is_free
        target = int(is_hit.argmax())
        others = np.delete(covered[number], target)
        result.append(bool(is_hit.any() and not others.any()))
        is_free[target] &= not result[-1]
    return result


def most_interior(bitmap: np.ndarray) -> int:
    """The position ``x · H + y`` of the pixel farthest from the outside of a mask ``(H, W) uint8``, which has some."""
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    top, left = int(rows[0]), int(columns[0])
    inside = np.pad(bitmap[top : rows[-1] + 1, left : columns[-1] + 1], 1)  # beyond the image is outside
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    x, y = divmod(int(distance.T.argmax()), distance.shape[0])
    return (x + left) * bitmap.shape[0] + y + top


def _pixel(position: int, height: int, width: int) -> dict:
    """A mask of one pixel."""
    counts = [position, 1, height * width - position - 1]
    return mask_api.frPyObjects({'size': [height, width], 'counts': counts}, height, width)
