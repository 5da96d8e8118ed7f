"""pycocotools, called by the book, and predictions as other models would leave them."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from coco_random import encode
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.evaluation.result import Result, TypeScores

Row = dict[str, Any]


def pycocotools_evaluate(
    truth: Row, detections: list[Row], iou_type: str, max_dets=(1, 10, 100), as_given=False, evaluation=COCOeval
) -> COCOeval:
    if not as_given:  # with a box beside the mask, its loader would take the box's area for the mask's
        drop = 'segmentation' if iou_type == 'bbox' else 'bbox'
        detections = [{key: value for key, value in one.items() if key != drop} for one in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        truth_api = COCO()
        truth_api.dataset = copy.deepcopy({'info': {}, **truth})
        truth_api.createIndex()
        detection_api = truth_api.loadRes(copy.deepcopy(detections)) if detections else COCO()
        evaluator = evaluation(truth_api, detection_api, iou_type)
        evaluator.params.maxDets = list(max_dets)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def twelve_numbers(truth: Row, detections: list[Row], iou_type: str) -> np.ndarray:
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; -1 where there is no ground truth."""
    return np.asarray(pycocotools_evaluate(truth, detections, iou_type).stats)


def our_numbers(scores: TypeScores, sizes: str = 'coco') -> np.ndarray:
    """The same of a result."""
    by_size = [scores.per_size[sizes][size] for size in 'sml']
    values = [scores.mAP, scores.mAP_50, scores.mAP_75, *(one.mAP for one in by_size)]
    values += [scores.AR_1, scores.AR_10, scores.AR_100, *(one.AR_100 for one in by_size)]
    return np.array([-1 if value is None else value for value in values])


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
