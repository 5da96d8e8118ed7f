"""Match tables and bootstrap intervals against pycocotools and against resampling done by hand."""

import numpy as np
import pytest
from coco_random import matching_of, random_dataset
from coco_reference import twelve_numbers

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import MatchTable, difference_intervals, group_intervals, match_table


def table_of(truth, detections) -> MatchTable:
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
