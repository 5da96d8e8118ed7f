"""The protocol against pycocotools, number by number."""

import contextlib
import copy
import io

import numpy as np
import pytest
from coco_random import encode, matching_of, random_dataset
from coco_reference import pycocotools_evaluate, twelve_numbers
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval, Params

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import protocol
from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.strata import sized_tables, summary

NO_DETECTIONS = next(seed for seed in range(1000) if not random_dataset(seed)[1])
FEW, ALL = (*range(30), NO_DETECTIONS), range(30, 250)
SEEDS = [pytest.param(FEW, id='few'), pytest.param(ALL, id='all', marks=pytest.mark.slow)]


def our_twelve(truth, detections, iou_type, relative: bool = False) -> np.ndarray:
    matching = matching_of(truth, detections, iou_type)
    by_size = sized_tables(matching, relative)
    values = [*summary(match_table(matching), by_size).values(), *(one.ar() for one in by_size.values())]
    return np.array([-1.0 if value is None else value for value in values])


def assert_equal_numbers(truth, detections, iou_type) -> None:
    theirs = twelve_numbers(truth, detections, iou_type)
    np.testing.assert_allclose(our_twelve(truth, detections, iou_type), theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize('seeds', SEEDS)
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_twelve_numbers_equal_pycocotools(iou_type, seeds):
    for seed in seeds:
        assert_equal_numbers(*random_dataset(seed), iou_type)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_more_than_a_hundred_detections_are_cut(iou_type):
    truth, detections = random_dataset(3, images=1)
    rng = np.random.default_rng(0)
    many = [{**one, 'score': float(rng.integers(0, 9)) / 9} for one in detections * 40]
    assert len(many) > 250
    assert_equal_numbers(truth, many, iou_type)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equal_scores_crowds_empty_images_and_id_0(iou_type):
    """Everything at once: one score for all, half of the truth crowds, the first with id 0, images with nothing."""
    rng = np.random.default_rng(0)
    lost = 0
    for seed in range(30):
        truth, detections = random_dataset(seed, images=6)
        truth['images'] += [{'id': 90 + i, 'height': 50, 'width': 60} for i in range(3)]
        for annotation in truth['annotations']:
            annotation['iscrowd'] = int(rng.random() < 0.5)
        detections = [{**one, 'score': 0.5} for one in detections]
        reference = twelve_numbers(truth, detections, iou_type)
        from_zero = {**truth, 'annotations': [{**one, 'id': one['id'] - 1} for one in truth['annotations']]}
        ours = our_twelve(from_zero, detections, iou_type)
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-9, err_msg=f'seed {seed}')
        lost += not np.allclose(twelve_numbers(from_zero, detections, iou_type), reference)
    assert lost, 'pycocotools should lose the annotation with id 0 somewhere, or this test shows nothing'


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_relative_areas_equal_pycocotools_with_scaled_bins(iou_type):
    truth, detections = random_dataset(11, images=5)
    for image in truth['images']:  # pretend a size: one size makes the relative bins plain pixel bins
        image['height'], image['width'] = 200, 300
    for shape in truth['annotations'] + detections:
        small, full = mask_api.decode(shape['segmentation']), np.zeros((200, 300), bool)
        full[: small.shape[0], : small.shape[1]] = small
        shape['segmentation'] = encode(full)
    reference = pycocotools_evaluate(truth, detections, iou_type)
    scale = 200 * 300 / (640 * 480)
    params = Params(iouType=iou_type)
    params.areaRng = [[low * scale, high * scale] for low, high in params.areaRng]
    params.imgIds, params.catIds = reference.params.imgIds, reference.params.catIds
    scaled = COCOeval(reference.cocoGt, reference.cocoDt, iou_type)
    scaled.params = params
    scaled.evaluate()
    scaled.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        scaled.summarize()
    ours = our_twelve(truth, detections, iou_type, relative=True)
    np.testing.assert_allclose(ours, scaled.stats, rtol=0, atol=1e-9)
    assert not np.allclose(ours, reference.stats)


def test_a_mask_of_another_size_than_its_image_is_refused():
    truth, detections = random_dataset(1)
    detections[0]['segmentation'] = encode(np.ones((7, 9), bool))
    with pytest.raises(InputError, match=r'got \[7, 9\]'):
        our_twelve(truth, detections, 'segm')


def test_the_inputs_are_left_as_they_were_and_parts_and_other_classes_change_nothing(monkeypatch):
    data = random_dataset(2, images=9)
    before = copy.deepcopy(data)
    whole = match_table(matching_of(*data))
    across = matching_of(*data, is_across=True)
    monkeypatch.setattr(protocol, 'SHAPES_AT_ONCE', 3)
    for other in (across, matching_of(*data)):
        for name, one in match_table(other).classes.items():
            np.testing.assert_array_equal(one.outcome, whole.classes[name].outcome)
    assert across.common.shared.sum() > matching_of(*data).common.shared.sum()
    assert data == before
