"""COCO's protocol: overlaps, matching, average precision and recall."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
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


def compute_overlaps(
    annotations: Sequence[Shape], detections: Sequence[Shape], iou_type: str
) -> dict[Pair, np.ndarray]:
    """IoU of each detection with each annotation of its image and class; over the detection alone for crowds.

    Args:
        annotations: With ``bbox`` or, as compressed RLE, ``mask``; perhaps ``iscrowd``.
        detections: With ``score`` and ``bbox`` or ``segmentation``.
        iou_type: ``bbox`` or ``segm``.

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
    return overlaps


MAX_DETS = (1, 10, MAX_PER_IMAGE)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
IOU_TYPES = ('bbox', 'segm')

SIZE_EDGES_PX = (32.0**2, 96.0**2)
"""COCO's edges between small, medium and large, in pixels of area."""

COCO_IMAGE_AREA_PX = 640 * 480
SIZE_EDGES_FRAC = (SIZE_EDGES_PX[0] / COCO_IMAGE_AREA_PX, SIZE_EDGES_PX[1] / COCO_IMAGE_AREA_PX)
"""The same edges as fractions of the image area, 1/300 and 3/100.

COCO chose its pixel edges for images of about 640×480. In a 2448×2048 photo nearly every object is "large" by them;
dividing by the image area keeps what the words meant, whatever the camera's resolution.
"""


@dataclasses.dataclass(frozen=True)
class Accumulated:
    """Precision and recall over thresholds, classes and areas; -1 where there is no ground truth.

    Attributes:
        precision: ``(T, R, K, A, M)`` float64: IoU thresholds, recall points, classes, areas, detection limits.
        recall: ``(T, K, A, M)`` float64.
        classes: The K class names, in category order.
        areas: The A names: ``all``, ``s``, ``m``, ``l``.
    """

    precision: np.ndarray
    recall: np.ndarray
    classes: tuple[str, ...]
    areas: tuple[str, ...] = ('all', 's', 'm', 'l')

    def ap(self, iou: float | None = None, area: str = 'all', class_name: str | None = None) -> float | None:
        """Average precision at 100 detections; over all IoU thresholds and classes unless one is named."""
        values = self.precision[:, :, :, self.areas.index(area), -1]
        if iou is not None:
            values = values[np.isclose(IOU_THRESHOLDS, iou)]
        if class_name is not None:
            values = values[:, :, self.classes.index(class_name)]
        return _mean_where_defined(values)

    def ar(self, max_dets: int = MAX_DETS[-1], area: str = 'all', class_name: str | None = None) -> float | None:
        """Average recall at a detection limit; over all classes unless one is named."""
        values = self.recall[:, :, self.areas.index(area), MAX_DETS.index(max_dets)]
        if class_name is not None:
            values = values[:, self.classes.index(class_name)]
        return _mean_where_defined(values)

    def summary(self, class_name: str | None = None) -> dict[str, float | None]:
        """The nine numbers of the result file, under their names there."""
        scores = {'mAP': self.ap(class_name=class_name)}
        scores |= {f'mAP_{round(100 * iou)}': self.ap(iou, class_name=class_name) for iou in (0.5, 0.75)}
        scores |= {f'mAP_{area}': self.ap(area=area, class_name=class_name) for area in self.areas[1:]}
        scores |= {f'AR_{limit}': self.ar(limit, class_name=class_name) for limit in MAX_DETS}
        return scores


def _mean_where_defined(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


class _Evaluator(COCOeval_faster):
    """COCO evaluation of overlaps that are known already; boxes and masks are not looked at again."""

    known_ious: Mapping[tuple[int, int], Any]

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - the library's names
        return self.known_ious[imgId, catId]


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
        ious: See :func:`compute_overlaps`.
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
        self.ious = compute_overlaps(self.annotations, self.detections, iou_type)
        # Lists, because the C++ code takes numbers out of arrays one Python object at a time.
        self._iou_lists = {pair: ious.tolist() for pair, ious in self.ious.items()}

    def accumulate(self, image_ids: Collection[int] | None = None, relative_areas: bool = False) -> Accumulated:
        """Precision and recall over all images or some, at bins of the area in pixels or of the image area."""
        image_ids = self.images.keys() if image_ids is None else set(image_ids)
        images = [{'id': image_id} for image_id in sorted(image_ids)]
        categories = [{'id': category_id} for category_id in self.category_ids]
        apis = [
            COCO({'images': images, 'categories': categories, 'annotations': part})
            for part in (
                self._essentials(self.annotations, image_ids, relative_areas),
                self._essentials(self.detections, image_ids, relative_areas),
            )
        ]
        evaluator = _Evaluator(*apis, 'bbox')
        evaluator.known_ious = self._iou_lists
        evaluator.params.maxDets = list(MAX_DETS)
        evaluator.evaluate()
        evaluator.accumulate()
        precision, recall = (np.asarray(evaluator.eval[key]) for key in ('precision', 'recall'))
        return Accumulated(precision, recall, classes=self.classes)

    def _essentials(
        self, shapes: Sequence[Mapping[str, Any]], image_ids: Collection[int], relative_areas: bool
    ) -> list[dict[str, Any]]:
        """What matching reads, numbered from 1: an annotation whose id is 0 could never be matched."""
        unit_px = dict.fromkeys(image_ids, 1.0)
        if relative_areas:
            sizes = ((i, self.images[i]) for i in image_ids)
            unit_px = {i: image['height'] * image['width'] / COCO_IMAGE_AREA_PX for i, image in sizes}
        return [
            {
                'id': number,
                'image_id': shape['image_id'],
                'category_id': shape['category_id'],
                'area': shape['area'] / unit_px[shape['image_id']],
                'iscrowd': int(shape.get('iscrowd', 0)),
                'score': shape.get('score', 0.0),
            }
            for number, shape in enumerate((shape for shape in shapes if shape['image_id'] in image_ids), 1)
        ]
