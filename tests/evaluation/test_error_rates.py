"""Over- and under-segmentation on drawn cases and against the definition, pixel by pixel."""

import numpy as np
import pytest
from coco_random import encode, matching_of, random_dataset, random_mask

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


def of_masks(instances: list[np.ndarray], predictions: list[np.ndarray]):
    """One image with instances and predictions of one class."""
    height, width = instances[0].shape
    image = {'id': 1, 'height': height, 'width': width}
    truth = [{'segmentation': encode(m), 'area': int(m.sum()), 'iscrowd': 0} for m in instances]
    found = [{'segmentation': encode(m), 'score': 0.5 + i / 100} for i, m in enumerate(predictions)]
    for shape in truth + found:
        shape.update(image_id=1, category_id=1)
    categories = [{'id': 1, 'name': 'object'}]
    return matching_of({'images': [image], 'annotations': truth, 'categories': categories}, found)


def test_verdicts_follow_the_definition():
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        instances = [m for m in (random_mask(rng, 30, 40) for _ in range(rng.integers(1, 6))) if m.any()]
        predictions = [m for m in (random_mask(rng, 30, 40) for _ in range(rng.integers(0, 7))) if m.any()]
        expected = by_definition(instances, predictions)
        assert [VERDICTS[one] for one in verdicts(of_masks(instances, predictions))] == expected
        seen |= set(expected)
    assert seen == set(VERDICTS)


def test_rates_add_up_per_class_and_skip_crowds_and_low_scores():
    truth, detections = random_dataset(1, images=6)
    rates = segmentation_errors(matching_of(truth, detections))
    for class_id, name in ((1, 'tote'), (2, 'object')):
        counted = [a for a in truth['annotations'] if a['category_id'] == class_id and not a['iscrowd']]
        assert rates[name].instances == len(counted)
        assert sum(getattr(rates[name], verdict) for verdict in VERDICTS) == pytest.approx(1)
    silent = [{**d, 'score': 0.4} for d in detections]
    assert segmentation_errors(matching_of(truth, silent))['object'].missed == 1
