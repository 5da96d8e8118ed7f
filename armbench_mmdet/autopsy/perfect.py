"""Ground truth as predictions, and pycocotools called the way stock evaluations call it."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import TRANSFORMS
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.datasets.armbench import ArmbenchDataset, MinibenchDataset
from armbench_mmdet.datasets.ground_truth import load_ground_truth
from armbench_mmdet.datasets.locations import SUBSETS
from armbench_mmdet.evaluation.protocol import run_lengths

Sample = dict[str, Any]
"""What the metric takes of an image: ``img_id``, ``ori_shape`` and ``pred_instances``, a dict of arrays and RLEs."""


@dataclass(frozen=True)
class PerfectPredictions:
    """A data set and predictions that are its ground truth.

    Attributes:
        dataset: The images that are evaluated, with a test pipeline.
        truth: Their ground truth, COCO format.
    """

    dataset: ArmbenchDataset
    truth: Mapping[str, Any]

    @classmethod
    def of_minibench(cls, data_root: str | Path | None = None, split: str = 'test') -> PerfectPredictions:
        """Those of a split of minibench's mix subset, which is made if it is not there yet."""
        pipeline = [TRANSFORMS.build({'type': name}) for name in ('LoadImageFromFile', 'PackDetInputs')]
        dataset = MinibenchDataset(
            subset=SUBSETS[0], split=split, data_root=data_root, pipeline=pipeline, test_mode=True
        )
        return cls(dataset, load_ground_truth(dataset.ann_file))

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the labels."""
        return [category['name'] for category in self.truth['categories']]

    def samples(self) -> list[Sample]:
        """Fresh samples with every instance at score 1."""
        instances = defaultdict(list)
        for annotation in self.truth['annotations']:
            instances[annotation['image_id']].append(annotation)
        return [self._sample(image, instances[image['id']]) for image in self.truth['images']]

    def _sample(self, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> Sample:
        size = image['height'], image['width']
        boxes = np.array([a['bbox'] for a in annotations], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return {
            'img_id': image['id'],
            'ori_shape': size,
            'pred_instances': {
                'bboxes': boxes,
                'labels': np.array([a['category_id'] - 1 for a in annotations], np.int64),
                'scores': np.ones(len(annotations)),
                'masks': [run_lengths(a['segmentation'], *size) for a in annotations],
            },
        }

    def stock_detections(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Masks as COCO results, categories looked up as mmdet's ``CocoMetric`` does: ``cat_ids[label]``."""
        category_ids = [category['id'] for category in self.truth['categories']]
        return [
            {'image_id': sample['img_id'], 'category_id': category_ids[label], 'score': score, 'segmentation': mask}
            for sample in samples
            for label, score, mask in zip(
                *(sample['pred_instances'][key] for key in ('labels', 'scores', 'masks')), strict=True
            )
        ]


def stock_scores(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], max_dets: Sequence[int] = (1, 10, 100)
) -> dict[str, float]:
    """Segmentation mAP, mAP_s, mAP_m and mAP_l by pycocotools, with the most of ``max_dets`` detections an image."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = {'info': {}, **copy.deepcopy(dict(truth))}
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(copy.deepcopy(list(detections))), 'segm')
        evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][..., -1]  # (T, R, K, A)
    means = {}
    for area, key in enumerate(('mAP', 'mAP_s', 'mAP_m', 'mAP_l')):
        defined = precision[..., area][precision[..., area] > -1]
        means[key] = float(defined.mean()) if defined.size else float('nan')
    return means


def bitmaps(masks: Sequence[dict[str, Any]]) -> np.ndarray:
    """(N, H, W) uint8 of N RLE masks."""
    return mask_api.decode(list(masks)).transpose(2, 0, 1)


def encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """RLE masks of (N, H, W) bitmaps."""
    return mask_api.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
