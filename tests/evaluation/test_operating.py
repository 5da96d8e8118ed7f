"""Operating points and calibration, against counting by hand."""

import functools
from pathlib import Path

import numpy as np
import pytest
from coco_random import matching_of, random_dataset, truth_of
from coco_reference import pycocotools_evaluate
from metric_runs import META, as_samples

from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.operating import operations


def counted(truth, detections, category: int) -> list[tuple[float, bool]]:
    """Score and rightness of each detection that counts, as pycocotools matches at IoU 0.5."""
    found = []
    for image in pycocotools_evaluate(truth, detections, 'segm').evalImgs:
        if image is not None and image['category_id'] == category and image['aRng'] == [0, 1e10]:
            rows = zip(image['dtScores'], image['dtMatches'][0], image['dtIgnore'][0], strict=True)
            found += [(score, match > 0) for score, match, ignored in rows if not ignored]
    return found


def point_by_hand(rows: list[tuple[float, bool]], instances: int, threshold: float) -> list[float | None]:
    kept = [is_right for score, is_right in rows if score >= threshold]
    return [sum(kept) / len(kept) if kept else None, sum(kept) / instances, 2 * sum(kept) / (len(kept) + instances)]


@pytest.mark.parametrize('seed', range(6))
def test_points_and_calibration(seed: int) -> None:
    truth, detections = random_dataset(seed, images=8)
    result = operations(matching_of(truth, detections), {'object': 0.4})
    for category in truth['categories']:
        rows = counted(truth, detections, category['id'])
        own = [a for a in truth['annotations'] if a['category_id'] == category['id'] and not a.get('iscrowd')]
        if not own:
            assert category['name'] not in result
            continue
        one = result[category['name']]

        by_hand = functools.partial(point_by_hand, rows, len(own))
        for point in (*one.curve, one.best, *([one.of_val] if category['name'] == 'object' else [])):
            assert [point.precision, point.recall, point.f1] == pytest.approx(by_hand(point.threshold))
        assert one.best.f1 == pytest.approx(max(by_hand(score)[2] for score, _ in rows))
        assert (one.of_val.threshold if one.of_val else None) == (0.4 if category['name'] == 'object' else None)
        bins = [[row for row in rows if min(int(row[0] * 10), 9) == number] for number in range(10)]
        gaps = [abs(np.mean([s for s, _ in b]) - np.mean([r for _, r in b])) * len(b) for b in bins if b]
        assert one.calibration_error == pytest.approx(sum(gaps) / len(rows))
        assert sum(one.detections for one in one.reliability) == len(rows)


def test_nothing_found_has_no_point() -> None:
    truth, _ = random_dataset(1)
    for one in operations(matching_of(truth, []), {}).values():
        assert (one.best, one.calibration_error, one.reliability) == (None, None, [])
        assert {point.recall for point in one.curve} == {0.0}


def test_a_test_uses_the_threshold_of_val(tmp_path: Path) -> None:
    points = {}
    for split, seed in (('val', 4), ('test', 6)):
        truth, detections = random_dataset(seed, images=8)
        identity = {'subset': 'mix-object-tote', 'split': split, 'extra': {'checkpoint_sha256': 'feed'}}
        file = tmp_path / f'mix-object-tote_{split}.json'
        metric = ArmbenchMetric(ground_truth=truth_of(truth), result_file=str(file), identity=identity, log_table=False)
        metric.dataset_meta = META
        samples = as_samples(truth, detections)
        metric.process({}, samples)
        metric.evaluate(len(samples))
        points[split] = metric.result.operation['object']
    assert points['val'].of_val is None
    assert points['test'].of_val.threshold == points['val'].best.threshold != points['test'].best.threshold
