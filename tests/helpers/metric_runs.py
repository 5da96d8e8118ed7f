"""The metric, run on predictions that are given as COCO results."""

from typing import Any

import numpy as np
import torch
from coco_random import truth_of
from pycocotools import mask as mask_api

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.evaluation import ArmbenchMetric

META = {'classes': ('tote', 'object'), **GroundTruthSource('mix-object-tote/test.json').as_metainfo()}


def as_samples(truth: dict[str, Any], detections: list[dict[str, Any]], masks: str = 'bitmaps') -> list[dict]:
    """What a model would return for these detections; boxes exact in float64."""
    samples = []
    for image in truth['images']:
        own = [d for d in detections if d['image_id'] == image['id']]
        boxes = np.array([d['bbox'] for d in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances: dict[str, Any] = {
            'bboxes': torch.from_numpy(boxes),
            'scores': torch.tensor([d['score'] for d in own], dtype=torch.float64),
            'labels': torch.tensor([d['category_id'] - 1 for d in own], dtype=torch.long),
        }
        size = (image['height'], image['width'])
        if masks == 'bitmaps':
            bitmaps = [mask_api.decode(d['segmentation']) for d in own]
            instances['masks'] = torch.from_numpy(np.array(bitmaps, np.uint8).reshape(-1, *size)).bool()
        elif masks == 'rle':
            instances['masks'] = [{**d['segmentation'], 'counts': d['segmentation']['counts'].encode()} for d in own]
        samples.append({'img_id': image['id'], 'ori_shape': size, 'pred_instances': instances})
    return samples


def run(truth: dict[str, Any], samples: list[dict], **options: Any) -> tuple[dict[str, Any], ArmbenchMetric]:
    metric = ArmbenchMetric(ground_truth=truth_of(truth), **options)
    metric.dataset_meta = META
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(truth['images'])), metric
