"""Known faults of ``configs/mask2former/README.md``: what each does to perfect predictions under stock evaluation.

That the metric, the self-test and the class check refuse them is in their own tests.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_random import as_samples, encode
from coco_reference import pycocotools_evaluate
from mmdet.evaluation import CocoMetric
from pycocotools import mask as mask_api

from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.masks.runs import run_lengths

README = Path(__file__).resolve().parents[2] / 'configs/mask2former/README.md'
NETWORK_SCALE = 0.75
REDUCED_LABELS = {1: 0, 2: 1}
COCO_IDS = {1: 29, 2: 40}  # "label + 1" of suitcase and bottle, as a head of 80 classes sees totes and objects
Row = dict[str, Any]  # a COCO result, or an image
Change = Callable[[list[Row], Row], list[Row]]  # of the results of an image


class Oracle:
    """Minibench's ground truth as predictions, and two ways to evaluate it."""

    def __init__(self, ann_file: Path) -> None:
        self.truth = json.loads(ann_file.read_text())

    def rows(self, change: Change = lambda rows, _: rows) -> list[Row]:
        """Every instance at score 1, those of each image changed by a function of them and the image."""
        found = []
        for image in self.truth['images']:
            size = image['height'], image['width']
            own = [one for one in self.truth['annotations'] if one['image_id'] == image['id']]
            masks = [encode(mask_api.decode(run_lengths(one['segmentation'], *size))) for one in own]
            rows = [{**one, 'score': 1.0, 'segmentation': mask} for one, mask in zip(own, masks, strict=True)]
            found += change(rows, image)
        return found

    def stock(self, rows: list[Row], max_dets: tuple = (1, 10, 100), as_given: bool = False, **truth: Any) -> float:
        """The segmentation mAP of pycocotools."""
        evaluated = pycocotools_evaluate({**self.truth, **truth}, rows, 'segm', max_dets, as_given)
        precision = evaluated.eval['precision'][:, :, :, 0, -1]
        return float(precision[precision > -1].mean())

    def here(self, rows: list[Row], **truth: Any) -> float:
        metric = ArmbenchMetric(ground_truth=GroundTruth.of({**self.truth, **truth}), metric='segm', log_table=False)
        metric.dataset_meta = {'classes': [category['name'] for category in self.truth['categories']]}
        metric.process(None, as_samples(self.truth, rows, 'rle'))
        return metric.evaluate(len(self.truth['images']))['coco/segm_mAP']


def renumbered(ids: dict[int, int]) -> Change:
    return lambda rows, _: [{**row, 'category_id': ids[row['category_id']]} for row in rows]


def flatten(rows: list[Row], image: Row) -> list[Row]:
    """Masks after a visit to one id map, where the later of two instances keeps the pixel."""
    ids = np.zeros((image['height'], image['width']), int)
    for number, row in enumerate(rows):
        ids[mask_api.decode(row['segmentation']) > 0] = number + 1
    return [{**row, 'segmentation': encode(ids == number + 1)} for number, row in enumerate(rows)]


def shrink(rows: list[Row], _: Row) -> list[Row]:
    scale = {'dsize': None, 'fx': NETWORK_SCALE, 'fy': NETWORK_SCALE}
    return [{**row, 'segmentation': encode(cv2.resize(mask_api.decode(row['segmentation']), **scale))} for row in rows]


def crowd(rows: list[Row], image: Row) -> list[Row]:
    """In every third image a hundred surer false detections of each class."""
    if image['id'] % 3 != 1:
        return rows
    false = []
    for row in {row['category_id']: row for row in rows}.values():
        moved = np.roll(mask_api.decode(row['segmentation']), image['width'] // 3, axis=1)
        false += 100 * [{**row, 'segmentation': encode(moved)}]
    return [*false, *({**row, 'score': 0.25} for row in rows)]


def only_boxes(rows: list[Row], _: Row) -> list[Row]:
    return [{key: row[key] for key in ('image_id', 'category_id', 'score', 'bbox')} for row in rows]


def from_zero(truth: dict[str, Any]) -> list[Row]:
    return [{**annotation, 'id': number} for number, annotation in enumerate(truth['annotations'])]


@pytest.fixture(scope='module')
def oracle(minibench_root: Path) -> Oracle:
    return Oracle(minibench_root / 'mix-object-tote/test.json')


LOWERING: dict[str, tuple[Callable[[Oracle], float], float, float]] = {  # the stock score, and its bounds
    'nothing': (lambda o: o.stock(o.rows()), 1, 1),
    'labels shifted by −1': (lambda o: o.stock(o.rows(renumbered(REDUCED_LABELS))), 0, 0.2),
    'rectangles instead of masks': (lambda o: o.stock(o.rows(only_boxes), as_given=True), 0.2, 0.95),
    'masks flattened into one id map': (lambda o: o.stock(o.rows(flatten)), 0.3, 0.95),
    'masks left at network size': (lambda o: o.stock(o.rows(shrink)), 0, 0),
    "COCO's 80-class head": (lambda o: o.stock(o.rows(renumbered(COCO_IDS))), 0, 0),
    'annotation ids from 0': (lambda o: o.stock(o.rows(), annotations=from_zero(o.truth)), 0.7, 0.999),
}
OTHERS = ('a `bbox` left beside the mask', '1000 detections an image')


@pytest.mark.parametrize('name', LOWERING)
def test_a_fault_lowers_the_stock_score_of_perfect_predictions(oracle: Oracle, name: str) -> None:
    measure, low, high = LOWERING[name]
    assert low <= measure(oracle) <= high


def test_perfect_predictions_score_one_here_whatever_their_ids(oracle: Oracle) -> None:
    assert oracle.here(oracle.rows()) == 1
    assert oracle.here(oracle.rows(), annotations=from_zero(oracle.truth)) == 1


def test_mmdets_detection_limits_flatter_and_ours_are_cocos(oracle: Oracle) -> None:
    rows = oracle.rows(crowd)
    at_a_hundred = oracle.stock(rows)
    limits = tuple(CocoMetric().proposal_nums)
    assert limits == (100, 300, 1000)
    assert oracle.stock(rows, limits) > at_a_hundred + 0.005
    assert oracle.here(rows) == pytest.approx(at_a_hundred, abs=1e-9)


def test_the_readmes_table_has_a_row_for_every_fault() -> None:
    rows = README.read_text().split('| fault ', 1)[1].split('\n\n')[0].splitlines()[2:]
    written = [row.split('|')[1].strip() for row in rows]
    assert {'nothing', *written} == {*LOWERING, *OTHERS}
