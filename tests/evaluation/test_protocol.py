"""The protocol, its match tables and bootstrap intervals against pycocotools, OpenCV's boundaries and draws by hand."""

import copy

import cv2
import numpy as np
import pytest
from coco_random import encode, matching_of, random_dataset, random_mask
from coco_reference import our_numbers, pycocotools_evaluate, twelve_numbers
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import matches, protocol
from armbench_mmdet.evaluation.matches import difference_intervals, group_intervals, match_table, scores_of_type
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


def table_of(truth, detections) -> matches.MatchTable:
    return match_table(matching_of(truth, detections))


def resampled(truth, detections, draw):
    """The data set in which the images of a draw really stand, each under an id of its own."""
    sizes = {image['id']: image for image in truth['images']}
    images = [{**sizes[image_id], 'id': number} for number, image_id in enumerate(draw)]
    shapes = [
        [{**one, 'image_id': n} for n, image_id in enumerate(draw) for one in every if one['image_id'] == image_id]
        for every in (truth['annotations'], detections)
    ]
    annotations = [{**one, 'id': number} for number, one in enumerate(shapes[0], 1)]
    return {**truth, 'images': images, 'annotations': annotations}, shapes[1]


def test_scores_of_the_images_and_of_a_draw_are_pycocotools() -> None:
    for seed in range(8):
        truth, detections = random_dataset(seed, images=5)
        scores = np.random.default_rng(seed).permutation(len(detections)).tolist()
        # No two are equal: ties between copies of an image would depend on their order.
        detections = [{**one, 'score': float(score)} for one, score in zip(detections, scores, strict=True)]
        table = table_of(truth, detections)
        images = len(table.image_ids)
        counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images))
        draw = np.repeat(table.image_ids, counts).tolist()
        found = group_intervals([table], resamples=1, seed=seed)['mean']
        data = (truth, detections), resampled(truth, detections, draw)
        references = [twelve_numbers(*one, 'segm')[0] for one in data]
        for value, reference in zip((found.value, found.low), references, strict=True):
            assert value is None if -1 in references else value == pytest.approx(reference, abs=1e-9)


@pytest.fixture(scope='module')
def runs():
    """Two runs on the same 40 images; the second one has lost a third of its detections."""
    truth, detections = random_dataset(4, images=40)
    assert len(detections) > 100
    return table_of(truth, detections), table_of(truth, [d for i, d in enumerate(detections) if i % 3])


def test_a_paired_difference_is_surer_than_either_score(runs):
    difference = difference_intervals(runs[:1], runs[1:], resamples=300)['mean']
    single = group_intervals(runs[:1], resamples=300)['mean']
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < single.high - single.low
    assert difference_intervals(runs[:1], runs[:1], resamples=20)['mean'] == (0, 0, 0)


def test_seeds_are_drawn_as_clusters(runs):
    assert group_intervals(runs[:1], resamples=300) == group_intervals([runs[0]] * 2, resamples=300)
    both = group_intervals(runs, resamples=300)['object']
    better, worse = (group_intervals([run], resamples=300)['object'] for run in runs)
    assert both.value == pytest.approx((better.value + worse.value) / 2)
    # A quarter of the draws holds the better run twice, a quarter the worse one: the spread between them is in it.
    assert both.low < both.value - (better.value - worse.value) / 3
    assert worse.low - 0.01 < both.low < both.high < better.high + 0.01


def test_runs_on_other_images_are_refused(runs):
    with pytest.raises(InputError, match='same images'):
        difference_intervals(runs[:1], [table_of(*random_dataset(2, images=40))])
