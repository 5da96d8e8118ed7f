"""COCO's protocol: its thresholds, limits and sizes, and the overlaps of detections with ground truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_api

MAX_PER_IMAGE = 100

Shape = Mapping[str, Any]
Pair = tuple[int, int]


def run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of polygons, uncompressed or compressed run lengths."""
    if isinstance(segmentation, list):
        return mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
    if isinstance(segmentation['counts'], list):
        return mask_api.frPyObjects(segmentation, height, width)
    return segmentation


def with_run_lengths(ground_truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of COCO-format ground truth, its masks as compressed RLE."""
    sizes = {image['id']: (image['height'], image['width']) for image in ground_truth['images']}
    annotations = [
        {**one, 'segmentation': run_lengths(one['segmentation'], *sizes[one['image_id']])}
        for one in ground_truth['annotations']
    ]
    return {**ground_truth, 'annotations': annotations}


def by_image_and_class(shapes: Sequence[Shape]) -> dict[Pair, list[Shape]]:
    """Annotations or detections in their order, by image and category id."""
    groups: dict[Pair, list[Shape]] = defaultdict(list)
    for shape in shapes:
        groups[shape['image_id'], shape['category_id']].append(shape)
    return groups


def best_first(detections: Sequence[Shape]) -> list[Shape]:
    """Detections of an image and class by falling score, at most 100, equal scores in their order."""
    return sorted(detections, key=lambda detection: -detection['score'])[:MAX_PER_IMAGE]


class Overlaps(NamedTuple):
    """One class in one image: detections as :func:`best_first` orders them, against annotations in their order.

    Attributes:
        ious: ``(D, G)`` float64; with crowds over the detection alone.
        scores: ``(D,)`` float64.
        areas: ``(D,)`` float64, px².
        crowd: ``(G,)`` bool.
        truth_areas: ``(G,)`` float64, px².
    """

    ious: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    truth_areas: np.ndarray


def _overlaps(truth: Sequence[Shape], found: Sequence[Shape], iou_type: str) -> Overlaps:
    crowd = np.array([bool(annotation.get('iscrowd')) for annotation in truth], bool)
    ious = np.zeros((len(found), len(truth)))
    if ious.size and iou_type == 'bbox':
        boxes = [np.array([shape['bbox'] for shape in part], np.float64) for part in (found, truth)]
        ious = mask_api.iou(*boxes, crowd.tolist())
    elif ious.size:
        masks = [shape['segmentation'] for shape in found], [shape['mask'] for shape in truth]
        ious = mask_api.iou(*masks, crowd.tolist())
    scores, areas, truth_areas = (
        np.array([shape[key] for shape in part], np.float64)
        for key, part in (('score', found), ('area', found), ('area', truth))
    )
    return Overlaps(ious, scores, areas, crowd, truth_areas)


MAX_DETS = (1, 10, MAX_PER_IMAGE)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
IOU_TYPES = ('bbox', 'segm')

SIZES = {'s': (0.0, 32.0**2), 'm': (32.0**2, 96.0**2), 'l': (96.0**2, np.inf)}
"""COCO's small, medium and large, px² of area; both edges belong to both neighbours."""

COCO_IMAGE_AREA_PX = 640 * 480
"""COCO chose its sizes for such images. In a 2448×2048 photo nearly every object is "large" by them; scaled with the
image, up to 1/300, 3/100 and more of its area, they keep what the words meant, whatever the camera's resolution.
"""


class Matching:
    """Detections held against ground truth under one IoU type.

    Args:
        ground_truth: COCO-format dict with ``images``, ``annotations`` and ``categories``; ``area`` is filled.
            It is not changed.
        detections: COCO results: ``image_id``, ``category_id``, ``score`` and ``bbox`` (xywh) for boxes or
            ``segmentation`` (RLE) for masks. They are not changed.
        iou_type: ``bbox`` or ``segm``.

    Attributes:
        annotations: The ground truth, for masks with each ``mask`` as RLE.
        detections: The detections with their ``area``.
        overlaps: By image and category id; nothing where there are neither annotations nor detections.
    """

    def __init__(self, ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou_type: str) -> None:
        self.iou_type = iou_type
        self.images: dict[int, dict[str, Any]] = {image['id']: image for image in ground_truth['images']}
        categories = sorted(ground_truth['categories'], key=lambda category: category['id'])
        self.classes = tuple(category['name'] for category in categories)
        self.category_ids = [category['id'] for category in categories]
        self.annotations = [dict(annotation) for annotation in ground_truth['annotations']]
        if iou_type == 'bbox':
            self.detections = [{**d, 'area': d['bbox'][2] * d['bbox'][3]} for d in detections]
        else:
            self.detections = [{**d, 'area': float(mask_api.area(d['segmentation']))} for d in detections]
            for annotation in self.annotations:
                image = self.images[annotation['image_id']]
                annotation['mask'] = run_lengths(annotation['segmentation'], image['height'], image['width'])
        truth, found = by_image_and_class(self.annotations), by_image_and_class(self.detections)
        self.overlaps = {
            pair: _overlaps(truth.get(pair, ()), best_first(found.get(pair, ())), iou_type)
            for pair in truth.keys() | found.keys()
        }
