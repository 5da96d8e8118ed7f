"""Overlaps of detections with ground truth, image by image and class by class, by pycocotools' own operators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as boundary_api
from pycocotools import mask as mask_api

MAX_PER_IMAGE = 100
BOUNDARY_FRAC = 0.02
"""Width of the strip along the outline in boundary IoU, of the image's diagonal (arXiv 2103.16562, section 4)."""

Shape = Mapping[str, Any]
Pair = tuple[int, int]


def run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of polygons, uncompressed or compressed run lengths."""
    if isinstance(segmentation, list):
        return mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
    if isinstance(segmentation['counts'], list):
        return mask_api.frPyObjects(segmentation, height, width)
    return segmentation


def by_image_and_class(shapes: Sequence[Shape]) -> dict[Pair, list[Shape]]:
    """Annotations or detections in their order, by image and category id."""
    groups: dict[Pair, list[Shape]] = defaultdict(list)
    for shape in shapes:
        groups[shape['image_id'], shape['category_id']].append(shape)
    return groups


def best_first(detections: Sequence[Shape]) -> list[Shape]:
    """Detections of an image and class by falling score, at most 100, equal scores in their order."""
    return sorted(detections, key=lambda detection: -detection['score'])[:MAX_PER_IMAGE]


def compute_overlaps(
    annotations: Sequence[Shape], detections: Sequence[Shape], iou_type: str
) -> dict[Pair, np.ndarray]:
    """IoU of each detection with each annotation of its image and class; over the detection alone for crowds.

    Args:
        annotations: With ``bbox`` or, as compressed RLE, ``mask``; perhaps ``iscrowd``.
        detections: With ``score`` and ``bbox`` or ``segmentation``.
        iou_type: ``bbox``, ``segm`` or ``boundary``, for which a detection counts with the smaller of the IoU of the
            masks and that of their boundaries.

    Returns:
        ``(D, G)`` float64 by image and category id, detections as :func:`best_first` orders them; nothing where there
        are no annotations or no detections.
    """
    own_detections = by_image_and_class(detections)
    overlaps = {}
    for pair, truth in by_image_and_class(annotations).items():
        found = best_first(own_detections.get(pair, ()))
        if not found:
            continue
        crowd = [int(annotation.get('iscrowd', 0)) for annotation in truth]
        if iou_type == 'bbox':
            boxes = [np.array([shape['bbox'] for shape in part], np.float64) for part in (found, truth)]
            overlaps[pair] = mask_api.iou(*boxes, crowd)
            continue
        masks = [shape['segmentation'] for shape in found], [shape['mask'] for shape in truth]
        overlaps[pair] = mask_api.iou(*masks, crowd)
        if iou_type == 'boundary':
            outlines = [[boundary_api.rleToBoundary(mask, BOUNDARY_FRAC) for mask in part] for part in masks]
            counted = np.flatnonzero(np.array(crowd) == 0)
            along = mask_api.iou(*outlines, crowd)
            overlaps[pair][:, counted] = np.minimum(overlaps[pair], along)[:, counted]
    return overlaps
