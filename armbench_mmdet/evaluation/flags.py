"""Flags of foreign predictions: what may be honest, and should be known beside their score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.protocol import MAX_PER_IMAGE

RECTANGLES = 0.9
"""Share of the masks that are filled boxes, from which on all are taken for boxes; slivers do not count."""
FLOOR = 0.1
"""Models that are made for AP give lower scores than this, too."""
FEWEST_PER_SCORE = 10
"""Predictions that share a score on average, from which on scores are taken for rounded."""
SWAPPED_IMAGES = 200


def score_samples(ground_truth: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> float | None:
    """The mAP of masks, 0 to 1; None where nothing is annotated."""
    metric = ArmbenchMetric(ground_truth=ground_truth, metric='segm', log_table=False)
    metric.process(None, [dict(sample) for sample in samples])
    return metric.evaluate(len(ground_truth['images']))['coco/segm_mAP']


def flags_of_samples(samples: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]) -> list[str]:
    """Look for what fools a reader of the score, though it may be honest.

    Args:
        samples: One dict for each image with predictions, as the metric takes them, masks as run lengths.
        ground_truth: All of it.

    Returns:
        A line each: masks that are rectangles, boxes that are not of their masks, scores that were cut off, rounded or
        are no probabilities, images with more predictions than count or without any, labels that fit better swapped.
    """
    parts = [sample['pred_instances'] for sample in samples]
    if not parts:
        return ['every prediction was left out']
    scores, corners = (np.concatenate([part[key] for part in parts]) for key in ('scores', 'bboxes'))
    masks = [mask for part in parts for mask in part['masks']]
    boxes = np.array(mask_api.toBbox(masks), np.float64).reshape(-1, 4)
    areas = np.array([mask_api.area(mask) for mask in masks], np.float64)  # of 256 and more at once it fails
    flags = _mask_flags(boxes, areas, corners) + _score_flags(scores)
    crowded = [len(part['scores']) for part in parts if len(part['scores']) > MAX_PER_IMAGE]
    if crowded:
        flags.append(
            f'{len(crowded)} images have more than {MAX_PER_IMAGE} predictions, up to {max(crowded)}: of each class, '
            f'the best {MAX_PER_IMAGE} count'
        )
    if empty := len(ground_truth['images']) - len(parts):
        flags.append(
            f'{empty} of {len(ground_truth["images"])} images have no prediction: nothing was found there, or they '
            'were not predicted'
        )
    return flags + _label_flags(samples, ground_truth)


def _mask_flags(boxes: np.ndarray, areas: np.ndarray, corners: np.ndarray) -> list[str]:
    flags = []
    wide = boxes[:, 2:].min(1) > 2  # a sliver fills its box whatever it shows
    is_rectangle = areas[wide] == boxes[wide, 2:].prod(1)
    if wide.any() and is_rectangle.mean() >= RECTANGLES:
        flags.append(f'{is_rectangle.mean():.0%} of the masks are rectangles: boxes written as masks?')
    ends = boxes[:, :2] + boxes[:, 2:]
    overlap = (np.minimum(ends, corners[:, 2:]) - np.maximum(boxes[:, :2], corners[:, :2])).clip(0).prod(1)
    union = boxes[:, 2:].prod(1) + (corners[:, 2:] - corners[:, :2]).clip(0).prod(1) - overlap
    fit = np.median(overlap[wide] / union[wide]) if wide.any() else 1.0
    if fit < 0.5:
        flags.append(
            f'boxes do not fit their masks (median IoU {fit:.2f}): bbox must be x, y, width and height in pixels'
        )
    return flags


def _score_flags(scores: np.ndarray) -> list[str]:
    flags = []
    if scores.min() < 0 or scores.max() > 1:
        flags.append(
            f'scores from {scores.min():g} to {scores.max():g} are no probabilities: AP stands, and what goes by a '
            'threshold of 0.5, such as the error rates, does not'
        )
    elif scores.min() >= FLOOR and scores.min() < scores.max():
        flags.append(f'no score is below {scores.min():.3g}: filtered before AP? What was cut can only have lowered it')
    distinct = len(np.unique(scores))
    if distinct == 1 < len(scores):
        flags.append(f'every score is {scores[0]:g}: the order is arbitrary, and AP stands for one operating point')
    elif distinct * FEWEST_PER_SCORE <= len(scores):
        flags.append(
            f'{len(scores)} predictions have only {distinct} distinct scores: rounded? The order of equal ones decides'
        )
    return flags


def _label_flags(samples: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]) -> list[str]:
    """Whether some images, evenly taken, score higher with the two classes swapped."""
    names = [category['name'] for category in ground_truth['categories']]
    chosen = samples[:: -(-len(samples) // SWAPPED_IMAGES)]
    ids = {sample['img_id'] for sample in chosen}
    part = {
        **ground_truth,
        'images': [image for image in ground_truth['images'] if image['id'] in ids],
        'annotations': [one for one in ground_truth['annotations'] if one['image_id'] in ids],
    }
    swapped = [
        {**sample, 'pred_instances': {**sample['pred_instances'], 'labels': 1 - sample['pred_instances']['labels']}}
        for sample in chosen
    ]
    score, other = (score_samples(part, one) or 0.0 for one in (chosen, swapped))
    if other <= score:
        return []
    return [
        f'with {names[0]} and {names[1]} swapped, the mAP of masks is {other:.3f} instead of {score:.3f} (on '
        f'{len(chosen)} images): are the categories right? See --category-map'
    ]
