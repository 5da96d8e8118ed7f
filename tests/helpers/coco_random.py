"""Small random COCO data sets with everything that has ever tripped an evaluation, and the metric run on them."""

from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api

from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.protocol import Matching, Shapes

CATEGORIES = [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}]
META = {'classes': ('tote', 'object'), **GroundTruthSource('mix-object-tote/test.json').as_metainfo()}


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An ellipse somewhere in the image, of any size; (H, W) bool."""
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    ry, rx = rng.uniform(2, height / 1.5), rng.uniform(2, width / 1.5)
    y, x = np.mgrid[:height, :width] + 0.5
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': [int(side) for side in rle['size']], 'counts': rle['counts'].decode()}


def box_of(rle: dict[str, Any]) -> list[float]:
    return [float(v) for v in mask_api.toBbox(rle)]


def random_dataset(seed: int, images: int = 4) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and detections that carry both a box and a mask."""
    rng = np.random.default_rng(seed)
    used = [c['id'] for c in CATEGORIES][: rng.integers(1, 3)] if rng.random() < 0.3 else [1, 2]
    truth: dict[str, Any] = {'images': [], 'annotations': [], 'categories': CATEGORIES}
    detections: list[dict[str, Any]] = []
    for image_id in rng.permutation(50)[:images].tolist():
        height, width = (int(v) for v in rng.integers(40, 180, 2))
        truth['images'].append({'id': image_id, 'height': height, 'width': width, 'file_name': f'{image_id}.jpg'})
        for _ in range(int(rng.integers(0, 7))):
            mask = random_mask(rng, height, width)
            rle = encode(mask)
            annotation = {'id': len(truth['annotations']) + 1, 'image_id': image_id, 'segmentation': rle}
            annotation |= {'category_id': int(rng.choice(used)), 'bbox': box_of(rle), 'area': float(mask.sum())}
            annotation['iscrowd'] = int(rng.random() < 0.15)
            truth['annotations'].append(annotation)
            for _ in range(int(rng.integers(0, 4))):
                detections.append(_near(rng, image_id, mask, annotation['category_id']))
        for _ in range(int(rng.integers(0, 4))):
            detections.append(_near(rng, image_id, random_mask(rng, height, width), int(rng.integers(1, 3))))
    if rng.random() < 0.05:
        detections = []
    return truth, detections


def _near(rng: np.random.Generator, image_id: int, mask: np.ndarray, category_id: int) -> dict[str, Any]:
    moved = np.roll(mask, tuple(rng.integers(-4, 5, 2)), axis=(0, 1))
    rle = encode(moved)
    # Few distinct scores, so that ties are common; some labels wrong.
    score = float(rng.integers(0, 12)) / 12 if rng.random() < 0.7 else float(rng.random())
    category = category_id if rng.random() < 0.9 else 3 - category_id
    x, y, w, h = box_of(rle)
    jitter = rng.uniform(-1, 1, 4)
    box = [x + jitter[0], y + jitter[1], max(w + jitter[2], 0.5), max(h + jitter[3], 0.5)]
    return {'image_id': image_id, 'category_id': category, 'score': score, 'bbox': box, 'segmentation': rle}


def truth_of(document: dict[str, Any]) -> GroundTruth:
    """The ground truth of a document; ids, boxes and file names that it lacks are filled in."""
    images = [{'file_name': f'{image["id"]}.jpg', **image} for image in document['images']]
    annotations = [{'id': 0, 'bbox': (0, 0, 0, 0), 'iscrowd': 0, **one} for one in document['annotations']]
    return GroundTruth.of({**document, 'images': images, 'annotations': annotations})


def matching_of(truth: dict[str, Any], rows: list[dict[str, Any]], iou_type: str = 'segm', **options: Any) -> Matching:
    return Matching(truth_of(truth), Shapes.of(rows), iou_type, **options)


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
