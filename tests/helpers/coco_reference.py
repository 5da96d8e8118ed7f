"""pycocotools, called by the book."""

import contextlib
import copy
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def pycocotools_evaluate(
    truth: dict[str, Any],
    detections: list[dict[str, Any]],
    iou_type: str,
    max_dets: Sequence[int] = (1, 10, 100),
    as_given: bool = False,
) -> COCOeval:
    if not as_given:  # with a box beside the mask, its loader would take the box's area for the mask's
        drop = 'segmentation' if iou_type == 'bbox' else 'bbox'
        detections = [{key: value for key, value in one.items() if key != drop} for one in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        truth_api = COCO()
        truth_api.dataset = copy.deepcopy({'info': {}, **truth})
        truth_api.createIndex()
        if detections:
            detection_api = truth_api.loadRes(copy.deepcopy(detections))
        else:
            detection_api = COCO()
            detection_api.dataset = {**copy.deepcopy(truth), 'annotations': []}
            detection_api.createIndex()
        evaluator = COCOeval(truth_api, detection_api, iou_type)
        evaluator.params.maxDets = list(max_dets)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def twelve_numbers(truth: dict[str, Any], detections: list[dict[str, Any]], iou_type: str) -> np.ndarray:
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; -1 where there is no ground truth."""
    return np.asarray(pycocotools_evaluate(truth, detections, iou_type).stats)
