"""pycocotools, called by the book."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.evaluation.result import TypeScores

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
