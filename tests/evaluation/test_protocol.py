"""The protocol against pycocotools, number by number; of boundaries, given the overlaps of bands that OpenCV draws."""

import copy

import cv2
import numpy as np
import pytest
from coco_random import encode, matching_of, random_dataset, random_mask
from coco_reference import our_numbers, pycocotools_evaluate, twelve_numbers
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.evaluation import protocol
from armbench_mmdet.evaluation.matches import match_table, scores_of_type
from armbench_mmdet.masks.runs import runs_of

NO_DETECTIONS = next(seed for seed in range(1000) if not random_dataset(seed)[1])
FEW, ALL = (*range(30), NO_DETECTIONS), range(30, 250)
SEEDS = [pytest.param(FEW, id='few'), pytest.param(ALL, id='all', marks=pytest.mark.slow)]


def our_twelve(truth, detections, iou_type, sizes='coco') -> np.ndarray:
    matching = matching_of(truth, detections, iou_type)
    return our_numbers(scores_of_type(matching, match_table(matching)), sizes)


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


def test_relative_bins_are_cocos_in_images_of_its_size() -> None:
    """Every length times 4, in images of 4 × 640 by 4 × 480 pixels."""
    truth, detections = random_dataset(11, images=5)
    reference = twelve_numbers(truth, detections, 'bbox')
    for image in truth['images']:
        image['height'], image['width'] = 4 * 480, 4 * 640
    for shape in truth['annotations'] + detections:
        shape['bbox'] = [4 * side for side in shape['bbox']]
    for annotation in truth['annotations']:
        annotation['area'] *= 16
    np.testing.assert_allclose(our_twelve(truth, detections, 'bbox', sizes='relative'), reference, rtol=0, atol=1e-9)
    assert not np.allclose(our_twelve(truth, detections, 'bbox'), reference)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_a_density_bin_is_the_evaluation_of_its_images(iou_type):
    checked = 0
    for seed in range(12):
        truth, detections = random_dataset(seed, images=8)
        matching = matching_of(truth, detections, iou_type)
        table = match_table(matching)
        density = dict(zip(table.image_ids.tolist(), table.density.tolist(), strict=True))
        scores = scores_of_type(matching, table).per_density
        for name, stratum in scores.items():
            images = {i for i, own in density.items() if own == name}
            assert stratum.images == len(images)
            if not images:
                assert stratum.mAP is None
                continue
            part = {**truth, 'images': [i for i in truth['images'] if i['id'] in images]}
            part['annotations'] = [a for a in truth['annotations'] if a['image_id'] in images]
            reference = twelve_numbers(part, [d for d in detections if d['image_id'] in images], iou_type)
            assert stratum.instances == sum(not a['iscrowd'] for a in part['annotations'])
            values = [-1 if one is None else one for one in (stratum.mAP, stratum.mAP_50, stratum.AR_100)]
            np.testing.assert_allclose(values, reference[[0, 1, 8]], rtol=0, atol=1e-9)
            checked += 1
    assert checked > 12


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


def core_of(mask: np.ndarray) -> np.ndarray:
    """As in the paper's own code: eroded by a 3×3 square, so many times, with nothing around the image."""
    times = max(round(0.02 * np.hypot(*mask.shape)), 1)
    return cv2.erode(np.pad(mask, 1), np.ones((3, 3), np.uint8), iterations=times)[1:-1, 1:-1]


class BoundaryEval(COCOeval):
    """Overlaps as in the paper, those with crowds as of masks."""

    def computeIoU(self, image_id: int, category_id: int) -> np.ndarray:
        ious = super().computeIoU(image_id, category_id)
        truth, found = self._gts[image_id, category_id], self._dts[image_id, category_id]
        found = sorted(found, key=lambda one: -one['score'])
        bands = [[mask_api.decode(one['segmentation']) for one in shapes] for shapes in (found, truth)]
        bands = [[encode(mask - core_of(mask)) for mask in masks] for masks in bands]
        if len(ious):
            counted = [not one['iscrowd'] for one in truth]
            along = mask_api.iou(*bands, [0] * len(truth))
            ious[:, counted] = np.minimum(ious, along)[:, counted]
        return ious


@pytest.mark.parametrize('seed', range(12))
def test_boundary_ap_is_that_of_the_paper(seed: int) -> None:
    truth, detections = random_dataset(seed)
    reference = pycocotools_evaluate(truth, detections, 'segm', evaluation=BoundaryEval).stats
    matching = matching_of(truth, detections, is_across=True).of_boundaries()
    ours = our_numbers(scores_of_type(matching, match_table(matching)))
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-9)


def test_cores_of_ragged_masks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(20, 200, 2)
        mask = random_mask(rng, height, width) | random_mask(rng, height, width)
        mask &= ~(random_mask(rng, height, width) & (rng.random((height, width)) < rng.choice([0.001, 1])))
        found = protocol.cores_of(runs_of([encode(mask)], [(height, width)]), np.array([[height, width]]))
        drawn = np.zeros(height * width, np.uint8)
        for start, end in found.switches.reshape(-1, 2):
            drawn[start:end] = 1
        np.testing.assert_array_equal(drawn.reshape(width, height).T, core_of(mask.astype(np.uint8)))
        assert found.areas[0] == drawn.sum()
