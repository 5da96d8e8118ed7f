"""Predictions as other models would leave them: the ground truth of minibench, moved a little."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from coco_random import encode
from coco_reference import our_numbers, twelve_numbers
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.result import Result

Row = dict[str, Any]


def read_truth(root: Path) -> Row:
    return json.loads((root / 'mix-object-tote/test.json').read_text())


def predictions_near(truth: Row, seed: int = 0) -> list[Row]:
    """Moved masks as compressed RLE with their boxes, scores of full precision from 0 to 1, a few wrong labels."""
    rng = np.random.default_rng(seed)
    sizes = {image['id']: (image['height'], image['width']) for image in truth['images']}
    rows = []
    for one in truth['annotations']:
        mask = mask_api.decode(mask_api.merge(mask_api.frPyObjects(one['segmentation'], *sizes[one['image_id']])))
        rle = encode(np.roll(mask, tuple(rng.integers(-3, 4, 2)), (0, 1)))
        box = (mask_api.toBbox(rle) + rng.uniform(0, 1, 4)).tolist()
        label = one['category_id'] if rng.random() < 0.9 else 3 - one['category_id']
        row = {'image_id': one['image_id'], 'category_id': label, 'score': float(rng.random()), 'bbox': box}
        rows.append({**row, 'segmentation': rle})
    return rows


def write_rows(folder: Path, rows: Any, name: str = 'predictions.json') -> Path:
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


def numbers_of(result: Result, iou_type: str) -> np.ndarray:
    return our_numbers(result.scores[iou_type])


def reference(truth: Row, rows: list[Row], iou_type: str) -> np.ndarray:
    """Pycocotools on the same rows, the masks made run lengths by its own code: it loads no others."""
    sizes = {image['id']: (image['height'], image['width']) for image in truth['images']}
    sent = []
    for row in rows:
        mask = row['segmentation']
        if isinstance(mask, list):
            mask = mask_api.merge(mask_api.frPyObjects(mask, *sizes[row['image_id']]))
        elif isinstance(mask['counts'], list):
            mask = mask_api.frPyObjects(mask, *mask['size'])
        sent.append({**row, 'segmentation': mask})
    return twelve_numbers(truth, sent, iou_type)
