"""Precision–recall curves and per-image scores against COCO's own numbers, and the rule by which images are chosen."""

import math

import numpy as np
import pytest
from coco_random import matching_of, random_dataset
from coco_reference import pycocotools_evaluate

from armbench_mmdet.evaluation.matches import FOUND, ClassMatches, MatchTable, match_table, precision_at_recall
from armbench_mmdet.report.pictures import KINDS, choose, image_scores


@pytest.mark.parametrize('seed', range(12))
def test_curves_and_scores_of_single_images_are_cocos(seed: int) -> None:
    truth, detections = random_dataset(seed)
    table = match_table(matching_of(truth, detections, 'bbox'))
    reference = pycocotools_evaluate(truth, detections, 'bbox').eval['precision'][:, :, :, 0, -1]
    reference = np.where(reference < 0, np.nan, reference)  # COCO's -1: no instances
    for number, matches in enumerate(table.classes.values()):
        np.testing.assert_allclose(precision_at_recall(matches), reference[:, :, number], atol=1e-12)
    for image_id, score in zip(table.image_ids.tolist(), image_scores(table), strict=True):
        one_image = {**truth, 'images': [image for image in truth['images'] if image['id'] == image_id]}
        alone = match_table(matching_of(one_image, detections, 'bbox')).ap()
        assert score == pytest.approx(math.nan if alone is None else alone, abs=1e-12, nan_ok=True)


TENTHS = [value / 10 for value in range(10)]
CHOICES = [
    # scores, per kind, image ids (ten times the place) by kind
    ([0.1, 0.9, 0.5], 1, ([10], [20], [0])),
    (TENTHS, 1, ([90], [50], [0])),
    (TENTHS, 3, ([90, 80, 70], [60, 50, 40], [20, 10, 0])),
    (TENTHS, 9, ([90, 80, 70], [60, 50, 40], [20, 10, 0])),  # no image twice
    ([0.5, 0.5, 0.5], 1, ([0], [10], [20])),  # ties by image id
    ([0.1, 0.2], 2, ([10], [], [0])),
    ([0.1], 1, ([0], [], [])),
    ([math.nan, 0.3], 1, ([10], [], [])),  # nothing to find, nothing to rank
    ([math.nan], 1, ([], [], [])),
]


@pytest.mark.parametrize(('scores', 'per_kind', 'expected'), CHOICES)
def test_images_are_chosen_by_rank(scores: list[float], per_kind: int, expected: tuple[list[int], ...]) -> None:
    # One instance and one detection an image, found at so many tenths of the thresholds; nothing there for NaN.
    rows, there = np.arange(len(scores), dtype=np.int32), ~np.isnan(scores)
    outcome = np.where(np.arange(10)[:, None] < np.round(10 * np.nan_to_num(scores)), FOUND, 0).astype(np.int8)
    matches = ClassMatches(rows, outcome, there.astype(np.int32))
    choices = choose(MatchTable(10 * rows.astype(np.int64), {'object': matches}), per_kind)
    assert tuple([one.image_id for one in choices if one.kind == kind] for kind in KINDS) == expected
    assert all(f' of {there.sum()}, AP' in one.caption for one in choices)
