"""The COCO protocol on plain dicts: overlaps computed once, precision and recall accumulated as often as needed.

The matching and the accumulation are faster-coco-eval's C++ code. This module fixes the protocol (thresholds, at most
100 detections, areas of masks for masks and of boxes for boxes), numbers annotations from 1 because COCO's code reads
an id of 0 as "unmatched", and names what comes out. Protocol: https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as mask_api
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from armbench_mmdet.errors import InputError

MAX_DETS = (1, 10, 100)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
IOU_TYPES = ('bbox', 'segm', 'boundary')

LARGEST_AREA_PX = 1e5**2
SIZE_EDGES_PX = (32.0**2, 96.0**2)
"""COCO's edges between small, medium and large, in pixels of area."""

COCO_IMAGE_AREA_PX = 640 * 480
SIZE_EDGES_FRAC = (SIZE_EDGES_PX[0] / COCO_IMAGE_AREA_PX, SIZE_EDGES_PX[1] / COCO_IMAGE_AREA_PX)
"""The same edges as fractions of the image area, 1/300 and 3/100.

COCO chose its pixel edges for images of about 640×480. In a 2448×2048 photo nearly every object is "large" by them;
dividing by the image area keeps what the words meant, whatever the camera's resolution.
"""

SUMMARY_KEYS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR_1', 'AR_10', 'AR_100')


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
    """COCO evaluation whose IoUs are computed once and reused for other areas and image subsets."""

    known_ious: Mapping[tuple[int, int], Any] | None = None

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - the library's names
        if self.known_ious is not None:
            return self.known_ious[imgId, catId]
        return super().computeIoU(imgId, catId)


class Matching:
    """Detections held against ground truth under one IoU type.

    Args:
        ground_truth: COCO-format dict with ``images``, ``annotations`` and ``categories``; ``area`` is filled.
            It is not changed.
        detections: COCO results: ``image_id``, ``category_id``, ``score`` and ``bbox`` (xywh) for boxes or
            ``segmentation`` (RLE) for masks and boundaries. They are not changed.
        iou_type: ``bbox``, ``segm`` or ``boundary`` (the smaller of mask and boundary IoU, arXiv 2103.16562).

    Raises:
        InputError: A detection without a mask in ``segm``, with both, or of an unknown image or category.
    """

    def __init__(self, ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou_type: str) -> None:
        if iou_type not in IOU_TYPES:
            raise InputError(f'iou_type must be one of {", ".join(IOU_TYPES)}, got {iou_type!r}')
        check_detections(ground_truth, detections, iou_type)
        self.iou_type = iou_type
        self.images: dict[int, dict[str, Any]] = {image['id']: image for image in ground_truth['images']}
        categories = sorted(ground_truth['categories'], key=lambda category: category['id'])
        self.classes = tuple(category['name'] for category in categories)
        self.category_ids = [category['id'] for category in categories]
        # Numbered anew: an annotation whose id is 0 could never be matched.
        self.annotations = [{**a, 'id': i} for i, a in enumerate(ground_truth['annotations'], 1)]
        self.detections = [{**d, 'id': i, 'iscrowd': 0} for i, d in enumerate(detections, 1)]
        _fill_areas(self.detections, iou_type)
        self._header = {'images': list(ground_truth['images']), 'categories': categories}
        self._ious: Mapping[tuple[int, int], Any] | None = None

    @property
    def ious(self) -> Mapping[tuple[int, int], Any]:
        """IoUs by image and category id: ``(D, G)`` float64, detections by falling score, at most 100; [] if empty."""
        if self._ious is None:
            self.accumulate()
        return self._ious or {}

    def accumulate(self, image_ids: Collection[int] | None = None, relative_areas: bool = False) -> Accumulated:
        """Precision and recall over all images or some, at bins of the area in pixels or of the image area."""
        annotations, detections = self.annotations, self.detections
        if image_ids is not None:
            annotations, detections = (
                [shape for shape in part if shape['image_id'] in image_ids] for part in (annotations, detections)
            )
        if relative_areas:
            annotations, detections = (
                [self._at_coco_size(shape) for shape in part] for part in (annotations, detections)
            )
        if self._ious is None and image_ids is None:
            evaluator = self._evaluator(annotations, detections, self.iou_type)
        else:
            # With the IoUs known only scores and areas are read, so no masks need to be prepared again.
            evaluator = self._evaluator(annotations, detections, 'bbox', image_ids)
            evaluator.known_ious = self.ious
        evaluator.evaluate()
        evaluator.accumulate()
        if image_ids is None:
            self._ious = evaluator.ious
        precision, recall = (np.asarray(evaluator.eval[key]) for key in ('precision', 'recall'))
        return Accumulated(precision, recall, classes=self.classes)

    def _evaluator(
        self,
        annotations: list[dict[str, Any]],
        detections: list[dict[str, Any]],
        iou_type: str,
        image_ids: Collection[int] | None = None,
    ) -> _Evaluator:
        apis = [COCO({**self._header, 'annotations': part}) for part in (annotations, detections)]
        evaluator = _Evaluator(*apis, iou_type)
        evaluator.params.maxDets = list(MAX_DETS)
        evaluator.params.catIds = list(self.category_ids)
        evaluator.params.imgIds = sorted(self.images if image_ids is None else image_ids)
        return evaluator

    def _at_coco_size(self, shape: dict[str, Any]) -> dict[str, Any]:
        image = self.images[shape['image_id']]
        return {**shape, 'area': shape['area'] * COCO_IMAGE_AREA_PX / (image['height'] * image['width'])}


def check_detections(ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou_type: str) -> None:
    """Refuse detections that COCO's loader would bend into something else.

    Raises:
        InputError: Every kind of fault found, once, each with its count and first example.
    """
    image_ids = {image['id'] for image in ground_truth['images']}
    category_ids = {category['id'] for category in ground_truth['categories']}
    wanted, forbidden = ('bbox', None) if iou_type == 'bbox' else ('segmentation', 'bbox')
    faults: dict[str, list[Any]] = {}
    for detection in detections:
        if detection['image_id'] not in image_ids:
            faults.setdefault('image_id must be an image of the ground truth', []).append(detection['image_id'])
        if detection['category_id'] not in category_ids:
            rule = f'category_id must be one of {sorted(category_ids)}'
            faults.setdefault(rule, []).append(detection['category_id'])
        if wanted not in detection:
            rule = f'a {iou_type} detection must carry {wanted!r} (a box is no mask)'
            faults.setdefault(rule, []).append(sorted(detection))
        if forbidden in detection:
            rule = f'a {iou_type} detection must not carry {forbidden!r}: its area would be taken for the mask area'
            faults.setdefault(rule, []).append(sorted(detection))
    if faults:
        raise InputError(
            '; '.join(f'{rule}, got {values[0]!r} ({len(values)} detections)' for rule, values in faults.items())
        )


def _fill_areas(detections: list[dict[str, Any]], iou_type: str) -> None:
    if iou_type == 'bbox':
        for detection in detections:
            detection['area'] = detection['bbox'][2] * detection['bbox'][3]
        return
    areas = mask_api.area([detection['segmentation'] for detection in detections]) if detections else []
    for detection, area in zip(detections, areas, strict=True):
        detection['area'] = float(area)
