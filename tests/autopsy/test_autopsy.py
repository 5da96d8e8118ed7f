"""Known faults: what each does to perfect predictions under stock evaluation, and what stops it here.

Each has happened in published ARMBench code, or is what stock tools do by default. The table of
``configs/mask2former/README.md`` has the scores on the whole of minibench.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_reference import pycocotools_evaluate
from mmdet.evaluation import CocoMetric
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as mask_api

from armbench_mmdet.datasets.armbench import MinibenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.hooks.preflight import run_selftest
from armbench_mmdet.masks.runs import run_lengths
from armbench_mmdet.transforms.loading import LoadPolygons

README = Path(__file__).resolve().parents[2] / 'configs/mask2former/README.md'
NETWORK_SCALE = 0.75
COCO_LABELS = np.array([28, 39])  # suitcase and bottle: what a head of 80 classes calls totes and objects
Instances = dict[str, Any]
Samples = list[dict[str, Any]]


class Oracle:
    """Minibench's ground truth as predictions, and two ways to evaluate it."""

    def __init__(self, root: Path) -> None:
        pipeline = [TRANSFORMS.build({'type': name}) for name in ('LoadImageFromFile', 'PackDetInputs')]
        place = {'subset': SUBSETS[0], 'split': 'test', 'data_root': root}
        self.dataset = MinibenchDataset(**place, pipeline=pipeline, test_mode=True)
        self.truth = json.loads(Path(self.dataset.ann_file).read_text())

    def samples(self, change: Callable[[Instances, dict[str, Any]], Any] = lambda *_: None) -> Samples:
        """Every instance at score 1, changed by a function of the instances and their image."""
        samples = []
        for image in self.truth['images']:
            own = [a for a in self.truth['annotations'] if a['image_id'] == image['id']]
            size = image['height'], image['width']
            boxes = np.array([a['bbox'] for a in own], np.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            labels = np.array([a['category_id'] - 1 for a in own], np.int64)
            masks = [run_lengths(a['segmentation'], *size) for a in own]
            instances = {'bboxes': boxes, 'labels': labels, 'scores': np.ones(len(own)), 'masks': masks}
            change(instances, image)
            samples.append({'img_id': image['id'], 'ori_shape': size, 'pred_instances': instances})
        return samples

    def coco_results(self, samples: Samples, categories: Any = None) -> list[dict[str, Any]]:
        """Categories are looked up as mmdet's ``CocoMetric`` does: ``cat_ids[label]``."""
        categories = [c['id'] for c in self.truth['categories']] if categories is None else categories
        return [
            {'image_id': sample['img_id'], 'category_id': categories[label], 'score': score, 'segmentation': mask}
            for sample in samples
            for label, score, mask in zip(
                *(sample['pred_instances'][key] for key in ('labels', 'scores', 'masks')), strict=True
            )
        ]

    def stock(self, detections: list[dict], max_dets: tuple = (1, 10, 100), **truth: Any) -> float:
        """The segmentation mAP of pycocotools."""
        evaluated = pycocotools_evaluate({**self.truth, **truth}, detections, 'segm', max_dets, as_given=True)
        precision = evaluated.eval['precision'][:, :, :, 0, -1]
        return float(precision[precision > -1].mean())

    def here(self, samples: Samples, truth: dict[str, Any] | None = None) -> float:
        metric = ArmbenchMetric(ground_truth=GroundTruth.of(truth or self.truth), metric='segm', log_table=False)
        metric.dataset_meta = {'classes': [category['name'] for category in self.truth['categories']]}
        metric.process(None, samples)
        return metric.evaluate(len(samples))['coco/segm_mAP']

    def self_test(self, loader: type) -> None:
        run_selftest(self.dataset, GroundTruth.of(self.truth), ('segm',), load_annotations={'type': loader})


def bitmaps(masks: list[dict]) -> np.ndarray:
    return mask_api.decode(list(masks)).transpose(2, 0, 1)


def encoded(masks: np.ndarray) -> list[dict]:
    return mask_api.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))


def flattened(masks: np.ndarray) -> np.ndarray:
    """Masks after a visit to one id map, where the later of two instances keeps the pixel."""
    ids = np.zeros(masks.shape[1:], int)
    for number, mask in enumerate(masks, 1):
        ids[mask > 0] = number
    return np.stack([ids == number for number in range(1, len(masks) + 1)]).astype(np.uint8)


class FlatteningLoader(LoadPolygons):
    """Masks that went through one id map."""

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        flat = flattened(results['gt_masks'].to_ndarray())
        results['gt_masks'] = BitmapMasks(flat, *flat.shape[1:])
        return results


def shift(instances: Instances, _: Any) -> None:
    """As after ``reduce_labels``."""
    instances['labels'] = instances['labels'] - 1


def flatten(instances: Instances, _: Any) -> None:
    instances['masks'] = encoded(flattened(bitmaps(instances['masks'])))


def shrink(instances: Instances, _: Any) -> None:
    masks = [cv2.resize(mask, None, fx=NETWORK_SCALE, fy=NETWORK_SCALE) for mask in bitmaps(instances['masks'])]
    instances['masks'] = encoded(np.stack(masks))


def coco_head(instances: Instances, _: Any) -> None:
    instances['labels'] = COCO_LABELS[instances['labels']]


def lose_masks(instances: Instances, _: Any) -> None:
    del instances['masks']


def crowd(instances: Instances, image: dict[str, Any]) -> None:
    """In every third image a hundred surer false detections of each class."""
    if image['id'] % 3 == 1:
        labels, first = np.unique(instances['labels'], return_index=True)
        moved = encoded(np.roll(bitmaps([instances['masks'][i] for i in first]), image['width'] // 3, axis=2))
        hundred = np.arange(100 * len(labels)) // 100
        instances['scores'] = np.concatenate([np.ones(len(hundred)), 0.25 * instances['scores']])
        instances['labels'] = np.concatenate([labels[hundred], instances['labels']])
        instances['bboxes'] = np.concatenate([np.zeros((len(hundred), 4)), instances['bboxes']])
        instances['masks'] = [*(moved[i] for i in hundred), *instances['masks']]


def only_boxes(detections: list[dict]) -> list[dict]:
    boxes = mask_api.toBbox([detection['segmentation'] for detection in detections]).tolist()
    kept = ('image_id', 'category_id', 'score')
    return [{**{key: one[key] for key in kept}, 'bbox': box} for one, box in zip(detections, boxes, strict=True)]


def from_zero(truth: dict[str, Any]) -> list[dict]:
    return [{**annotation, 'id': number} for number, annotation in enumerate(truth['annotations'])]


@pytest.fixture(scope='module')
def oracle(minibench_root: Path) -> Oracle:
    return Oracle(minibench_root)


def test_perfect_predictions_score_one_in_both_evaluations(oracle: Oracle) -> None:
    assert oracle.stock(oracle.coco_results(oracle.samples())) == 1
    assert oracle.here(oracle.samples()) == 1


ID_FAULT = 'annotation ids from 0'
LOWERING: dict[str, tuple[Callable[[Oracle], float], float, float]] = {  # the stock score, and its bounds
    'labels shifted by −1': (lambda o: o.stock(o.coco_results(o.samples(shift))), 0, 0.2),
    'rectangles instead of masks': (lambda o: o.stock(only_boxes(o.coco_results(o.samples()))), 0.2, 0.95),
    'masks flattened into one id map': (lambda o: o.stock(o.coco_results(o.samples(flatten))), 0.3, 0.95),
    'masks left at network size': (lambda o: o.stock(o.coco_results(o.samples(shrink))), 0, 0),
    # "label + 1" is what most converters take for the category; COCO's code passes over those it does not know.
    "COCO's 80-class head": (lambda o: o.stock(o.coco_results(o.samples(coco_head), range(1, 81))), 0, 0),
    ID_FAULT: (lambda o: o.stock(o.coco_results(o.samples()), annotations=from_zero(o.truth)), 0.7, 0.999),
}
BOX_FAULT, LIMIT_FAULT = 'a `bbox` left beside the mask', '1000 detections an image'


@pytest.mark.parametrize('name', LOWERING)
def test_a_fault_lowers_the_stock_score_of_perfect_predictions(oracle: Oracle, name: str) -> None:
    measure, low, high = LOWERING[name]
    assert low <= measure(oracle) <= high


REFUSED: list[tuple[str, Callable[[Oracle], Any], str]] = [
    ('labels shifted by −1', lambda o: o.here(o.samples(shift)), 'labels must be from 0 to 1, got -1'),
    ('rectangles instead of masks', lambda o: o.here(o.samples(lose_masks)), 'a box is no mask'),
    ('masks flattened into one id map', lambda o: o.self_test(FlatteningLoader), 'lost at masks'),
    ('masks left at network size', lambda o: o.here(o.samples(shrink)), 'mask size must be that of the image'),
    ("COCO's 80-class head", lambda o: o.here(o.samples(coco_head)), 'labels must be from 0 to 1, got 28 to 39'),
]


@pytest.mark.parametrize(('name', 'action', 'message'), REFUSED, ids=[name for name, *_ in REFUSED])
def test_a_fault_is_refused_here(oracle: Oracle, name: str, action: Callable[[Oracle], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        action(oracle)


def test_mmdets_detection_limits_flatter_and_ours_are_cocos(oracle: Oracle) -> None:
    samples = oracle.samples(crowd)
    at_a_hundred = oracle.stock(oracle.coco_results(samples))
    limits = tuple(CocoMetric().proposal_nums)
    assert limits == (100, 300, 1000)
    assert oracle.stock(oracle.coco_results(samples), limits) > at_a_hundred + 0.005
    assert oracle.here(samples) == pytest.approx(at_a_hundred, abs=1e-9)


def test_an_annotation_with_id_0_counts_here(oracle: Oracle) -> None:
    assert oracle.here(oracle.samples(), {**oracle.truth, 'annotations': from_zero(oracle.truth)}) == 1


def test_the_readmes_table_has_a_row_for_every_fault() -> None:
    rows = README.read_text().split('| fault ', 1)[1].split('\n\n')[0].splitlines()[2:]
    written = [row.split('|')[1].strip() for row in rows]
    assert set(written) == {*LOWERING, *(name for name, *_ in REFUSED), BOX_FAULT, LIMIT_FAULT}
