"""Flags of foreign predictions: what may be honest, and should be known beside their score."""

import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.protocol import MAX_PER_IMAGE, Matching, Shapes

RECTANGLES = 0.9
"""Share of the masks that are filled boxes, from which on all are taken for boxes; slivers do not count."""
FLOOR = 0.1
"""Models that are made for AP give lower scores than this, too."""
FEWEST_PER_SCORE = 10
"""Predictions that share a score on average, from which on scores are taken for rounded."""
SWAPPED_IMAGES = 200


def mask_ap(ground_truth: GroundTruth, detections: Shapes) -> float | None:
    """The mAP of masks, 0 to 1; None where nothing is annotated."""
    return match_table(Matching(ground_truth, detections, 'segm')).ap()


def flags_of(detections: Shapes, ground_truth: GroundTruth) -> list[str]:
    """Look for what fools a reader of the score, though it may be honest.

    Args:
        detections: At least one, masks as run lengths.
        ground_truth: All of it.

    Returns:
        A line each: masks that are rectangles, boxes that are not of their masks, scores that were cut off, rounded or
        are no probabilities, images with more predictions than count or without any, labels that fit better swapped.
    """
    flags = _mask_flags(detections) + _score_flags(detections.scores)
    image_ids, counts = np.unique(detections.image_ids, return_counts=True)
    if counts.max() > MAX_PER_IMAGE:
        flags.append(
            f'{(counts > MAX_PER_IMAGE).sum()} images have more than {MAX_PER_IMAGE} predictions, up to '
            f'{counts.max()}: of each class, the best {MAX_PER_IMAGE} count'
        )
    images = len(ground_truth.images)
    if len(image_ids) < images:
        flags.append(
            f'{images - len(image_ids)} of {images} images have no prediction: nothing was found there, or '
            'they were not predicted'
        )
    chosen = image_ids[:: -(-len(image_ids) // SWAPPED_IMAGES)].tolist()
    part = ground_truth.of_images(chosen)
    swapped = detections._replace(category_ids=3 - detections.category_ids)
    score, other = (mask_ap(part, one) or 0.0 for one in (detections, swapped))
    if other > score:
        names = ' and '.join(ground_truth.categories.values())
        flags.append(
            f'with {names} swapped, the mAP of masks is {other:.3f} instead of {score:.3f} (on {len(chosen)} images): '
            'are the categories right? See --category-map'
        )
    return flags


def _mask_flags(detections: Shapes) -> list[str]:
    flags = []
    boxes = np.array(mask_api.toBbox(list(detections.masks)), np.float64)
    areas = np.array([mask_api.area(mask) for mask in detections.masks], np.float64)  # of 256 and more at once it fails
    wide = boxes[:, 2:].min(1) > 2  # a sliver fills its box whatever it shows
    boxes, areas, given = boxes[wide], areas[wide], detections.boxes[wide]
    filled = (areas == boxes[:, 2:].prod(1)).mean() if len(areas) else 0.0
    if filled >= RECTANGLES:
        flags.append(f'{filled:.0%} of the masks are rectangles: boxes written as masks?')
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], given[:, :2] + given[:, 2:])
    overlap = (ends - np.maximum(boxes[:, :2], given[:, :2])).clip(0).prod(1)
    fit = np.median(overlap / (boxes[:, 2:].prod(1) + given[:, 2:].clip(0).prod(1) - overlap)) if len(areas) else 1.0
    if fit < 0.5:
        flags.append(
            f'boxes do not fit their masks (median IoU {fit:.2f}): bbox must be x, y, width and height in pixels'
        )
    return flags


def _score_flags(scores: np.ndarray) -> list[str]:
    flags = []
    low, high, distinct = scores.min(), scores.max(), len(np.unique(scores))
    if low < 0 or high > 1:
        flags.append(
            f'scores from {low:g} to {high:g} are no probabilities: AP stands, and what goes by a threshold of 0.5, '
            'such as the error rates, does not'
        )
    elif FLOOR <= low < high:
        flags.append(f'no score is below {low:.3g}: filtered before AP? What was cut can only have lowered it')
    if distinct == 1 < len(scores):
        flags.append(f'every score is {low:g}: the order is arbitrary, and AP stands for one operating point')
    elif distinct * FEWEST_PER_SCORE <= len(scores):
        flags.append(
            f'{len(scores)} predictions have only {distinct} distinct scores: rounded? The order of equal ones decides'
        )
    return flags
