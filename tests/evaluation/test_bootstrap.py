"""Match tables and bootstrap intervals against pycocotools and against resampling done by hand."""

import copy

import numpy as np
import pytest
from coco_random import only, random_dataset
from coco_reference import twelve_numbers

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.bootstrap import confidence_intervals, difference_intervals, group_intervals
from armbench_mmdet.evaluation.matches import MatchTable, match_table
from armbench_mmdet.evaluation.protocol import Matching


def table_of(truth, detections, iou_type='segm') -> MatchTable:
    return match_table(Matching(truth, only(detections, iou_type), iou_type))


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_the_observed_score_is_pycocotools_map(iou_type):
    for seed in range(20):
        truth, detections = random_dataset(seed, images=5)
        interval = confidence_intervals(table_of(truth, detections, iou_type), resamples=1)['mean']
        reference = twelve_numbers(truth, only(detections, iou_type), iou_type)[0]
        assert interval.value is None if reference == -1 else interval.value == pytest.approx(reference, abs=1e-9)


def resampled(truth, detections, draw):
    """The data set in which the images of a draw really stand, each under an id of its own."""
    new_truth = {**truth, 'images': [], 'annotations': []}
    new_detections = []
    for number, image_id in enumerate(draw):
        image = next(i for i in truth['images'] if i['id'] == image_id)
        new_truth['images'].append({**image, 'id': number})
        for annotation in truth['annotations']:
            if annotation['image_id'] == image_id:
                fresh = {'id': len(new_truth['annotations']) + 1, 'image_id': number}
                new_truth['annotations'].append({**copy.deepcopy(annotation), **fresh})
        new_detections += [{**d, 'image_id': number} for d in detections if d['image_id'] == image_id]
    return new_truth, new_detections


def test_a_draw_is_the_evaluation_of_the_images_drawn():
    for seed in range(8):
        truth, detections = random_dataset(seed, images=5)
        rng = np.random.default_rng(seed)
        for detection, score in zip(detections, rng.permutation(len(detections)), strict=True):
            detection['score'] = float(score)  # ties between copies of an image would depend on their order
        table = table_of(truth, detections)
        images = len(table.image_ids)
        counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images))
        draw = np.repeat(table.image_ids, counts)
        reference = twelve_numbers(*resampled(truth, only(detections, 'segm'), draw), 'segm')[0]
        drawn = confidence_intervals(table, resamples=1, seed=seed)['mean'].low
        assert drawn is None if reference == -1 else drawn == pytest.approx(reference, abs=1e-9)


@pytest.fixture(scope='module')
def runs():
    """Two runs on the same 40 images; the second one has lost a third of its detections."""
    truth, detections = random_dataset(4, images=40)
    assert len(detections) > 100
    worse = [d for i, d in enumerate(detections) if i % 3]
    return table_of(truth, detections), table_of(truth, worse)


def test_one_seed_gives_one_interval_around_the_score(runs):
    first, again = (confidence_intervals(runs[0], resamples=200, seed=4) for _ in range(2))
    assert first == again
    assert first != confidence_intervals(runs[0], resamples=200, seed=5)
    for name in ('mean', 'tote', 'object'):
        assert first[name].low < first[name].value < first[name].high


def test_a_paired_difference_is_surer_than_either_score(runs):
    difference = difference_intervals(runs[:1], runs[1:], resamples=300)['mean']
    single = confidence_intervals(runs[0], resamples=300)['mean']
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < single.high - single.low
    same = difference_intervals(runs[:1], runs[:1], resamples=20)['mean']
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_seeds_are_drawn_as_clusters(runs):
    alone, twice = group_intervals(runs[:1], resamples=300), group_intervals([runs[0]] * 2, resamples=300)
    assert alone == twice == confidence_intervals(runs[0], resamples=300)
    both, (first, second) = group_intervals(runs, resamples=300)['object'], runs
    scores = [confidence_intervals(run, resamples=300)['object'] for run in (first, second)]
    assert both.value == pytest.approx((scores[0].value + scores[1].value) / 2)
    # A quarter of the draws holds the better run twice, a quarter the worse one: the spread between them is in it.
    assert both.low < both.value - (scores[0].value - scores[1].value) / 3
    assert scores[1].low - 0.01 < both.low < both.high < scores[0].high + 0.01


def test_runs_on_other_images_are_refused(runs):
    truth, detections = random_dataset(2, images=40)
    with pytest.raises(InputError, match='same images'):
        difference_intervals(runs[:1], [table_of(truth, detections)])


def test_a_class_without_ground_truth_has_no_interval():
    truth, detections = random_dataset(1)
    truth['annotations'] = [a for a in truth['annotations'] if a['category_id'] == 1]
    intervals = confidence_intervals(table_of(truth, detections), resamples=20)
    assert intervals['object'].value is None
    assert intervals['object'].high is None
    assert intervals['mean'] == intervals['tote']


def test_tables_are_stored_and_read(runs, tmp_path):
    path = runs[0].save(tmp_path / 'results' / 'mix_test.segm.matches.npz')
    loaded = MatchTable.load(path)
    assert confidence_intervals(loaded, resamples=20) == confidence_intervals(runs[0], resamples=20)
    broken = tmp_path / 'broken.npz'
    broken.write_bytes(path.read_bytes()[:100])
    for bad in (broken, tmp_path / 'nowhere.npz'):
        with pytest.raises(InputError, match=bad.name):
            MatchTable.load(bad)
