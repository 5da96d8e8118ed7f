"""Over- and under-segmentation on drawn cases and against the definition, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from coco_random import encode, only, random_dataset, random_mask

from armbench_mmdet.evaluation.protocol import Matching, run_lengths
from armbench_mmdet.evaluation.strata import VERDICTS, segmentation_errors, verdicts


def by_definition(instances: list[np.ndarray], predictions: list[np.ndarray]) -> list[str]:
    found = []
    for g, truth in enumerate(instances):
        inside = [p for p in predictions if (p & truth).sum() > 0.5 * p.sum()]
        union = np.any(inside, axis=0) if inside else np.zeros_like(truth)
        others = [h for j, h in enumerate(instances) if j != g]
        if any((p & truth).sum() / (p | truth).sum() > 0.5 for p in predictions):
            found.append('detected')
        elif len(inside) >= 2 and (union & truth).sum() > 0.5 * truth.sum():
            found.append('over_segmented')
        elif any(
            (p & truth).sum() > 0.5 * truth.sum() and any((p & h).sum() > 0.5 * h.sum() for h in others)
            for p in predictions
        ):
            found.append('under_segmented')
        else:
            found.append('missed')
    return found


def test_verdicts_follow_the_definition():
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        instances = [m for m in (random_mask(rng, 30, 40) for _ in range(rng.integers(1, 6))) if m.any()]
        predictions = [m for m in (random_mask(rng, 30, 40) for _ in range(rng.integers(0, 7))) if m.any()]
        expected = by_definition(instances, predictions)
        assert verdicts([encode(m) for m in instances], [encode(m) for m in predictions]) == expected
        seen |= set(expected)
    assert seen == set(VERDICTS)


def test_rates_add_up_per_class_and_skip_crowds_and_low_scores():
    truth, detections = random_dataset(1, images=6)
    rates = segmentation_errors(Matching(truth, only(detections, 'segm'), 'segm'))
    for class_id, name in ((1, 'tote'), (2, 'object')):
        counted = [a for a in truth['annotations'] if a['category_id'] == class_id and not a['iscrowd']]
        assert rates[name].instances == len(counted)
        assert sum(getattr(rates[name], verdict) for verdict in VERDICTS) == pytest.approx(1)
    silent = [{**d, 'score': 0.4} for d in only(detections, 'segm')]
    assert segmentation_errors(Matching(truth, silent, 'segm'))['object'].missed == 1


def test_every_form_of_segmentation_is_read():
    square = np.zeros((10, 12), bool)
    square[2:5, 3:8] = True
    compressed = encode(square)
    counts = [3 * 10 + 2, 3, 7, 3, 7, 3, 7, 3, 7, 3, 10 * 12 - 75]
    polygon = [[3, 2, 8, 2, 8, 5, 3, 5]]
    forms = [polygon, {'size': [10, 12], 'counts': counts}, compressed]
    decoded = [run_lengths(form, 10, 12) for form in forms]
    assert verdicts([encode(square)] * 3, decoded) == ['detected'] * 3
