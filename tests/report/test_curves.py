"""Precision–recall curves against COCO's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from armbench_mmdet.evaluation.matches import match_table, precision_at_recall
from armbench_mmdet.evaluation.protocol import Matching


def crowded_boxes(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Overlapping boxes, some of them crowds, a third without a detection; tied scores and wrong classes."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {'images': [], 'annotations': [], 'categories': []}
    truth['categories'] = [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}]
    detections = []
    for image_id in range(6):
        truth['images'].append({'id': image_id, 'height': 100, 'width': 100})
        for box in rng.uniform(5, 40, (int(rng.integers(0, 9)), 4)):
            own = {'image_id': image_id, 'category_id': int(rng.integers(1, 3)), 'bbox': box.tolist()}
            truth['annotations'].append({**own, 'area': box[2] * box[3], 'iscrowd': int(rng.random() < 0.2)})
            for _ in range(int(rng.integers(0, 3))):
                found = {**own, 'bbox': (box + rng.normal(0, 4, 4)).clip(1).tolist()}
                if rng.random() < 0.2:
                    found['category_id'] = 3 - found['category_id']
                detections.append({**found, 'score': int(rng.integers(0, 8)) / 8})
    return truth, detections


@pytest.mark.parametrize('seed', range(12))
def test_curves_are_cocos(seed: int) -> None:
    matching = Matching(*crowded_boxes(seed), 'bbox')
    table = match_table(matching)
    reference = matching.accumulate().precision[:, :, :, 0, -1]
    for number, matches in enumerate(table.classes.values()):
        np.testing.assert_allclose(precision_at_recall(matches), reference[:, :, number], atol=1e-12)


def test_a_class_without_instances_has_no_curve_and_one_without_detections_is_zero() -> None:
    truth, detections = crowded_boxes(0)
    truth['annotations'] = [a for a in truth['annotations'] if a['category_id'] == 1]
    matches = match_table(Matching(truth, detections, 'bbox')).classes
    assert np.isnan(precision_at_recall(matches['object'])).all()
    assert not precision_at_recall(match_table(Matching(truth, [], 'bbox')).classes['tote']).any()
