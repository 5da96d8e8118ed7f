"""Perfect predictions, and the loader of annotations, with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as mask_api

from armbench_mmdet.autopsy.perfect import PerfectPredictions, Sample, bitmaps, encoded

NETWORK_SCALE = 0.75
COCO_LABELS = {'tote': 28, 'object': 39}  # suitcase and bottle: what a head of 80 classes knows them as


def changed(perfect: PerfectPredictions, change: Callable[[dict[str, Any], Sample], Any]) -> list[Sample]:
    """Perfect samples, each changed by a function of its ``pred_instances`` and itself."""
    samples = perfect.samples()
    for sample in samples:
        change(sample['pred_instances'], sample)
    return samples


def shifted(perfect: PerfectPredictions) -> list[Sample]:
    """Labels less one, as after ``reduce_labels``."""
    return changed(perfect, lambda instances, _: instances.update(labels=instances['labels'] - 1))


def flattened(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) masks after a visit to one id map, where the later of two instances keeps the pixel."""
    ids = np.zeros(masks.shape[1:], int)
    for number, mask in enumerate(masks, 1):
        ids[mask > 0] = number
    return np.stack([ids == number for number in range(1, len(masks) + 1)]).astype(np.uint8)


def through_id_map(perfect: PerfectPredictions) -> list[Sample]:
    """Masks that were flattened into one id map."""

    def flatten(instances: dict[str, Any], _: Sample) -> None:
        instances['masks'] = encoded(flattened(bitmaps(instances['masks'])))

    return changed(perfect, flatten)


def at_network_size(perfect: PerfectPredictions) -> list[Sample]:
    """Masks that were not brought back to the image's size."""

    def shrink(instances: dict[str, Any], _: Sample) -> None:
        masks = [cv2.resize(mask, None, fx=NETWORK_SCALE, fy=NETWORK_SCALE) for mask in bitmaps(instances['masks'])]
        instances['masks'] = encoded(np.stack(masks))

    return changed(perfect, shrink)


def with_false_detections(perfect: PerfectPredictions) -> list[Sample]:
    """Beside every true detection a surer false one, its mask moved aside by a twentieth of the image's width."""

    def add(instances: dict[str, Any], sample: Sample) -> None:
        false = encoded(np.roll(bitmaps(instances['masks']), sample['ori_shape'][1] // 20, axis=2))
        _put_before(instances, false, instances['labels'])

    return changed(perfect, add)


def crowded(perfect: PerfectPredictions) -> list[Sample]:
    """In every third image a hundred surer false detections of each class before the true ones."""

    def add(instances: dict[str, Any], sample: Sample) -> None:
        if sample['img_id'] in every_third:
            labels, first = np.unique(instances['labels'], return_index=True)
            masks = bitmaps([instances['masks'][index] for index in first])
            moved = encoded(np.roll(masks, sample['ori_shape'][1] // 3, axis=2))
            hundred = np.arange(100 * len(labels)) // 100
            _put_before(instances, [moved[index] for index in hundred], labels[hundred])
            instances['scores'] *= 0.5

    every_third = {image['id'] for image in perfect.truth['images'][::3]}
    return changed(perfect, add)


def _put_before(instances: dict[str, Any], masks: list[dict[str, Any]], labels: np.ndarray) -> None:
    """Give an image detections at score 1, and those it has half of theirs."""
    instances['scores'] = np.concatenate([np.ones(len(masks)), 0.5 * instances['scores']])
    instances['labels'] = np.concatenate([labels, instances['labels']])
    instances['masks'] = [*masks, *instances['masks']]


def with_boxes(detections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mask detections that still carry their box."""
    boxes = mask_api.toBbox([detection['segmentation'] for detection in detections]).tolist()
    return [{**detection, 'bbox': box} for detection, box in zip(detections, boxes, strict=True)]


def with_coco_labels(perfect: PerfectPredictions) -> list[Sample]:
    """Labels of a head of COCO's 80 classes."""
    known = np.array([COCO_LABELS[name] for name in perfect.classes])
    return changed(perfect, lambda instances, _: instances.update(labels=known[instances['labels']]))


def counted_from_zero(truth: Mapping[str, Any]) -> dict[str, Any]:
    """Ground truth whose annotation ids start at 0."""
    return {**truth, 'annotations': [{**a, 'id': number} for number, a in enumerate(truth['annotations'])]}


@TRANSFORMS.register_module()
class FaultyLoadAnnotations(LoadAnnotations):
    """``LoadAnnotations`` that commits a fault, to see whether the self-test notices.

    Args:
        fault: ``shift`` for labels less one, ``flatten`` for masks that went through one id map.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(with_bbox=True, with_mask=True)
        self.fault = fault

    def transform(self, results: dict) -> dict:
        """Load, then spoil."""
        results = super().transform(results)
        if self.fault == 'shift':
            results['gt_bboxes_labels'] = results['gt_bboxes_labels'] - 1
        else:
            flat = flattened(results['gt_masks'].to_ndarray())
            results['gt_masks'] = BitmapMasks(flat, *flat.shape[1:])
        return results
