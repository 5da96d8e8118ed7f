"""The faults: what each does to perfect predictions under stock evaluation, and how it meets the checks here.

Each is something that has happened in published ARMBench code or that stock tools do by default.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmdet.engine.hooks import NumClassCheckHook
from torch import nn

from armbench_mmdet.autopsy.perfect import PerfectPredictions, Sample, stock_scores
from armbench_mmdet.autopsy.spoiled import (
    at_network_size,
    changed,
    counted_from_zero,
    crowded,
    shifted,
    through_id_map,
    with_boxes,
    with_coco_labels,
    with_false_detections,
)
from armbench_mmdet.datasets.ground_truth import load_ground_truth
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.hooks.self_test import run_selftest

Scores = dict[str, float]
MANY_DETECTIONS = (100, 300, 1000)
"""The detection limits of mmdet's ``CocoMetric``."""


@dataclass(frozen=True)
class Fault:
    """A known way to a wrong number.

    Attributes:
        name: What is wrong.
        measure: Scores with the fault and without, by stock evaluation.
        stop: Commits the fault here, and returns what each check said; a check that says nothing raises.
        check: The checks of this project that stop it.
        score: Which score shows it.
    """

    name: str
    measure: Callable[[PerfectPredictions], tuple[Scores, Scores]]
    stop: Callable[[PerfectPredictions], list[str]]
    check: str
    score: str = 'mAP'


def refusal(action: Callable[[], Any], of: type[Exception] = InputError) -> str:
    """Run what must be refused and return the refusal; a RuntimeError if it is not."""
    try:
        action()
    except of as error:
        return str(error)
    raise RuntimeError('the fault went through')


def evaluate_here(perfect: PerfectPredictions, samples: Sequence[Sample], **metric_settings: Any) -> dict[str, Any]:
    """Evaluate masks with this project's metric."""
    settings = {'ground_truth': perfect.truth, 'metric': 'segm', 'log_table': False, **metric_settings}
    metric = ArmbenchMetric(**settings)
    metric.dataset_meta = {'classes': perfect.classes}
    metric.process(None, list(samples))
    return metric.evaluate(len(samples))


def _perfect_scores(perfect: PerfectPredictions) -> Scores:
    return stock_scores(perfect.truth, perfect.stock_detections(perfect.samples()))


def _with_samples(perfect: PerfectPredictions, samples: Sequence[Sample]) -> tuple[Scores, Scores]:
    return stock_scores(perfect.truth, perfect.stock_detections(samples)), _perfect_scores(perfect)


def _self_test(perfect: PerfectPredictions, fault: str) -> str:
    loader = {'type': 'FaultyLoadAnnotations', 'fault': fault}
    return refusal(lambda: run_selftest(perfect.dataset, perfect.truth, ('segm',), load_annotations=loader))


def _stop_shift(perfect: PerfectPredictions) -> list[str]:
    return [refusal(lambda: evaluate_here(perfect, shifted(perfect))), _self_test(perfect, 'shift')]


def _measure_rectangles(perfect: PerfectPredictions) -> tuple[Scores, Scores]:
    boxes = [box for sample in perfect.samples() for box in sample['pred_instances']['bboxes']]
    detections = perfect.stock_detections(perfect.samples())
    for detection, (x1, y1, x2, y2) in zip(detections, boxes, strict=True):
        del detection['segmentation']
        detection['bbox'] = [x1, y1, x2 - x1, y2 - y1]
    return stock_scores(perfect.truth, detections), _perfect_scores(perfect)


def _stop_rectangles(perfect: PerfectPredictions) -> list[str]:
    without_masks = changed(perfect, lambda instances, _: instances.pop('masks'))
    return [refusal(lambda: evaluate_here(perfect, without_masks))]


def _measure_leftover_box(perfect: PerfectPredictions) -> tuple[Scores, Scores]:
    detections = perfect.stock_detections(with_false_detections(perfect))
    return stock_scores(perfect.truth, with_boxes(detections)), stock_scores(perfect.truth, detections)


def _stop_leftover_box(perfect: PerfectPredictions) -> list[str]:
    detections = with_boxes(perfect.stock_detections(perfect.samples()))
    return [refusal(lambda: Matching(perfect.truth, detections, 'segm'))]


def _measure_many_detections(perfect: PerfectPredictions) -> tuple[Scores, Scores]:
    detections = perfect.stock_detections(crowded(perfect))
    return stock_scores(perfect.truth, detections, MANY_DETECTIONS), stock_scores(perfect.truth, detections)


def _stop_many_detections(perfect: PerfectPredictions) -> list[str]:
    return [refusal(lambda: evaluate_here(perfect, perfect.samples(), max_dets=MANY_DETECTIONS))]


def _measure_coco_head(perfect: PerfectPredictions) -> tuple[Scores, Scores]:
    # "label + 1" is what most converters take for the category; COCO's code passes over categories it does not know.
    detections = [
        {'image_id': sample['img_id'], 'category_id': int(label) + 1, 'score': 1.0, 'segmentation': mask}
        for sample in with_coco_labels(perfect)
        for label, mask in zip(sample['pred_instances']['labels'], sample['pred_instances']['masks'], strict=True)
    ]
    return stock_scores(perfect.truth, detections), _perfect_scores(perfect)


def _stop_coco_head(perfect: PerfectPredictions) -> list[str]:
    model = nn.Sequential(nn.Identity())
    model[0].num_classes = 80  # type: ignore[assignment]
    runner: Any = SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=perfect.dataset))
    return [
        refusal(lambda: NumClassCheckHook().before_train_epoch(runner), AssertionError),
        refusal(lambda: evaluate_here(perfect, with_coco_labels(perfect))),
    ]


def _measure_zero_ids(perfect: PerfectPredictions) -> tuple[Scores, Scores]:
    detections = perfect.stock_detections(perfect.samples())
    return stock_scores(counted_from_zero(perfect.truth), detections), stock_scores(perfect.truth, detections)


def _stop_zero_ids(perfect: PerfectPredictions) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'test.json'
        file.write_text(json.dumps(counted_from_zero(perfect.truth)))
        truth = load_ground_truth(file, cache_dir=folder)
    score = evaluate_here(perfect, perfect.samples(), ground_truth=truth)['coco/segm_mAP']
    if score != 1:
        raise RuntimeError(f'perfect predictions score {score} where ids start at 0')
    return ['perfect predictions score 1.0 where ids start at 0']


FAULTS = (
    Fault(
        'labels shifted by −1',
        lambda perfect: _with_samples(perfect, shifted(perfect)),
        _stop_shift,
        'the metric refuses labels outside 0…1; the self-test before training refuses the loader',
    ),
    Fault(
        'rectangles instead of masks',
        _measure_rectangles,
        _stop_rectangles,
        'the metric refuses predictions without masks',
    ),
    Fault(
        'masks flattened into one id map',
        lambda perfect: _with_samples(perfect, through_id_map(perfect)),
        lambda perfect: [_self_test(perfect, 'flatten')],
        'the self-test before training refuses the loader',
    ),
    Fault(
        'masks left at network size',
        lambda perfect: _with_samples(perfect, at_network_size(perfect)),
        lambda perfect: [refusal(lambda: evaluate_here(perfect, at_network_size(perfect)))],
        "the metric refuses masks of another size than the image's",
    ),
    Fault(
        'a `bbox` left beside the mask',
        _measure_leftover_box,
        _stop_leftover_box,
        'the protocol refuses mask detections that carry a box',
        score='mAP_s',
    ),
    Fault(
        '1000 detections an image',
        _measure_many_detections,
        _stop_many_detections,
        'the metric refuses other limits than (1, 10, 100)',
    ),
    Fault(
        "COCO's 80-class head",
        _measure_coco_head,
        _stop_coco_head,
        'NumClassCheckHook refuses to train it; the metric refuses labels outside 0…1',
    ),
    Fault(
        'annotation ids from 0',
        _measure_zero_ids,
        _stop_zero_ids,
        'ground truth is numbered from 1 when it is loaded',
    ),
)
