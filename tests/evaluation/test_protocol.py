"""The protocol against pycocotools, number by number."""

import contextlib
import copy
import io

import numpy as np
import pytest
from coco_random import encode, only, random_dataset
from coco_reference import pycocotools_evaluate, twelve_numbers
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval, Params

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import protocol
from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.evaluation.strata import sized_tables, summary

NO_DETECTIONS = next(seed for seed in range(1000) if not random_dataset(seed)[1])
FEW, ALL = (*range(30), NO_DETECTIONS), range(30, 250)
SEEDS = [pytest.param(FEW, id='few'), pytest.param(ALL, id='all', marks=pytest.mark.slow)]


def our_twelve(matching: Matching, relative: bool = False) -> np.ndarray:
    by_size = sized_tables(matching, relative)
    values = [*summary(match_table(matching), by_size).values(), *(one.ar() for one in by_size.values())]
    return np.array([-1.0 if value is None else value for value in values])


@pytest.mark.parametrize('seeds', SEEDS)
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_twelve_numbers_equal_pycocotools(iou_type, seeds):
    for seed in seeds:
        truth, detections = random_dataset(seed)
        detections = only(detections, iou_type)
        ours = our_twelve(Matching(truth, detections, iou_type))
        theirs = twelve_numbers(truth, detections, iou_type)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=f'seed {seed}')


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_more_than_a_hundred_detections_are_cut(iou_type):
    truth, detections = random_dataset(3, images=1)
    rng = np.random.default_rng(0)
    many = [{**copy.deepcopy(d), 'score': float(rng.integers(0, 9)) / 9} for d in only(detections, iou_type) * 40]
    assert len(many) > 250
    np.testing.assert_allclose(
        our_twelve(Matching(truth, many, iou_type)), twelve_numbers(truth, many, iou_type), rtol=0, atol=1e-9
    )


def test_an_annotation_with_id_0_is_matched_like_any_other():
    changed = 0
    for seed in range(20):
        truth, detections = random_dataset(seed)
        detections = only(detections, 'segm')
        from_zero = copy.deepcopy(truth)
        for annotation in from_zero['annotations']:
            annotation['id'] -= 1
        right = twelve_numbers(truth, detections, 'segm')
        np.testing.assert_allclose(our_twelve(Matching(from_zero, detections, 'segm')), right, rtol=0, atol=1e-9)
        changed += not np.allclose(twelve_numbers(from_zero, detections, 'segm'), right)
    assert changed, 'pycocotools should lose the annotation with id 0 somewhere, or this test shows nothing'


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_relative_areas_equal_pycocotools_with_scaled_bins(iou_type):
    truth, detections = random_dataset(11, images=5)
    detections = only(detections, iou_type)
    for image in truth['images']:  # pretend a size: one size makes the relative bins plain pixel bins
        image['height'], image['width'] = 200, 300
    for shape in truth['annotations'] + detections:
        if 'segmentation' in shape:
            shape['segmentation'] = _padded(shape['segmentation'], 200, 300)
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
    ours = our_twelve(Matching(truth, detections, iou_type), relative=True)
    np.testing.assert_allclose(ours, scaled.stats, rtol=0, atol=1e-9)
    assert not np.allclose(ours, reference.stats)


def _padded(rle: dict, height: int, width: int) -> dict:
    small = mask_api.decode(rle)
    full = np.zeros((height, width), bool)
    full[: small.shape[0], : small.shape[1]] = small
    return encode(full)


def test_the_inputs_are_left_as_they_were():
    truth, detections = random_dataset(5)
    detections = only(detections, 'segm')
    before = copy.deepcopy((truth, detections))
    our_twelve(Matching(truth, detections, 'segm'))
    assert (truth, detections) == before


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equal_scores_crowds_and_empty_images_equal_pycocotools(iou_type):
    """Everything at once: one score for all, half of the truth crowds, the first with id 0, images with nothing."""
    rng = np.random.default_rng(0)
    for seed in range(30):
        truth, detections = random_dataset(seed, images=6)
        truth['images'] += [{'id': 90 + i, 'height': 50, 'width': 60} for i in range(3)]
        for annotation in truth['annotations']:
            annotation['iscrowd'] = int(rng.random() < 0.5)
        for detection in detections:
            detection['score'] = 0.5
        reference = twelve_numbers(truth, only(detections, iou_type), iou_type)
        from_zero = [{**one, 'id': one['id'] - 1} for one in truth['annotations']]
        ours = our_twelve(Matching({**truth, 'annotations': from_zero}, only(detections, iou_type), iou_type))
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-9, err_msg=f'seed {seed}')


def test_a_mask_of_another_size_than_its_image_is_refused():
    truth, detections = random_dataset(1)
    detections[0]['segmentation'] = encode(np.ones((7, 9), bool))
    with pytest.raises(InputError, match=r'got \[7, 9\]'):
        our_twelve(Matching(truth, only(detections, 'segm'), 'segm'))


def test_common_pixels_in_parts_are_those_of_the_whole(monkeypatch):
    truth, detections = random_dataset(2, images=9)
    whole = Matching(truth, only(detections, 'segm'), 'segm').common
    monkeypatch.setattr(protocol, 'SHAPES_AT_ONCE', 3)
    parts = Matching(truth, only(detections, 'segm'), 'segm').common
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_common_areas_are_the_same_where_classes_are_held_against_each_other(iou_type):
    truth, detections = random_dataset(4, images=6)
    within, across = (Matching(truth, only(detections, iou_type), iou_type, is_across) for is_across in (False, True))
    for one, other in zip(within.common, across.common, strict=True):
        np.testing.assert_array_equal(one, other)
    assert across.across.values.sum() > within.common.values.sum()
