"""The report's pictures: which images are chosen, and that they are drawn from a result and its data alone."""

import math
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_random import matching_of, random_dataset
from coco_reference import pycocotools_evaluate
from pycocotools import mask as mask_api
from synthetic_runs import set_identity, set_keys, write_result

from armbench_mmdet import visualization as overlay
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import FOUND, ClassMatches, MatchTable, match_table, precision_at_recall
from armbench_mmdet.evaluation.result import file_fingerprint
from armbench_mmdet.report import pictures
from armbench_mmdet.report.collect import collect_runs, read_evaluations
from armbench_mmdet.report.page import Report
from armbench_mmdet.report.pictures import KINDS, SUSPECTED, Picture, choose, draw, gallery, image_scores, judge

SUBSET = SUBSETS[0]


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


@pytest.fixture
def result(minibench_root: Path, tmp_path: Path) -> Path:
    """Predictions that are the ground truth of ``tmp_path/data``, with scores above and below 0.5."""
    shutil.copytree(minibench_root / SUBSET, tmp_path / 'data' / SUBSET)
    return write_result(tmp_path, tmp_path / 'data', SUBSET, None, noise_px=0)


def drawn_from(result: Path) -> list[Picture]:
    """The first picture of each kind."""
    return draw('run', read_evaluations(result.parent)[0][0], per_kind=1)


def test_pictures_are_of_each_kind_wherever_the_data_lie(result: Path, tmp_path: Path) -> None:
    drawn = drawn_from(result)
    assert [(one.run, one.data, one.kind) for one in drawn] == [('run', f'{SUBSET} test', kind) for kind in KINDS]
    assert len({one.image for one in drawn}) == 3
    for one in drawn:
        height, width = cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert width > 1.5 * height
    ranks = [int(re.search(r'rank (\d+) of 4', one.caption)[1]) for one in drawn]
    assert ranks == sorted(ranks)

    data = tmp_path / 'data' / SUBSET
    set_keys(data / 'test.json', categories=[{'id': 1, 'name': 'bin'}, {'id': 2, 'name': 'item'}])
    (data / 'images').rename(tmp_path / 'photos')
    extra = {'image_folder': str(tmp_path / 'photos'), 'category_map': {'bin': 'tote', 'item': 'object'}}
    set_identity(result, extra, data_fingerprint=file_fingerprint(data / 'test.json'))
    assert drawn_from(result) == drawn


GONE = [
    (lambda result, data: shutil.rmtree(data / 'images'), r'image must be an existing file.*\.jpg'),
    (lambda result, data: (data / 'test.json').unlink(), r'test\.json.*gone or another; evaluate again'),
    (lambda result, data: (data / 'test.json').write_text('{}'), 'as it was when evaluated'),
    (lambda result, data: result.with_suffix('.segm.json').write_text('[{'), r'COCO results.*segm\.json'),
    (lambda result, data: result.with_suffix('.segm.matches.npz').unlink(), 'masks and their match table'),
]


@pytest.mark.parametrize(('damage', 'message'), GONE)
def test_what_is_gone_or_changed_is_named(damage, message: str, result: Path, tmp_path: Path) -> None:
    damage(result, tmp_path / 'data' / SUBSET)
    with pytest.raises(InputError, match=message):
        drawn_from(result)
    drawn, notes = gallery(collect_runs([tmp_path])[0])
    assert (drawn, len(notes)) == ([], 1)
    assert notes[0].endswith(f' (no pictures of {SUBSET} test by {tmp_path.name})')


def square(left: int, right: int, category: int = 2, **more: object) -> dict:
    bitmap = np.zeros((10, 40), np.uint8, order='F')
    bitmap[:, left:right] = 1
    one = {'image_id': 1, 'category_id': category, 'area': 10 * (right - left), **more}
    return {**one, 'segmentation': mask_api.encode(bitmap)}


def test_crowds_and_other_classes_are_judged_apart() -> None:
    truth = [square(0, 10), square(24, 40, iscrowd=1), square(12, 16), square(0, 40, category=1)]
    found = [square(0, 9, score=0.9), square(25, 30, score=0.8), square(0, 10, score=0.7), square(0, 40, score=0.6)]
    content = {'images': [{'id': 1, 'height': 10, 'width': 40}], 'annotations': truth}
    content['categories'] = [{'id': i, 'name': name} for i, name in ((1, 'tote'), (2, 'object'))]
    matching = matching_of(content, found)
    real, guessed = judge(matching, 1, not_annotated=['tote'])
    assert [one.verdict for one in real] == [overlay.FOUND, overlay.NOT_COUNTED, overlay.MISSED]
    wrong = overlay.FALSE_POSITIVE
    assert [one.verdict for one in guessed] == [overlay.CORRECT, overlay.NOT_COUNTED, wrong, wrong]
    assert [one.class_name for one in judge(matching, 1)[0]] == ['tote', 'object', 'object', 'object']


def test_suspected_labels_are_shown_close_up(report: Report) -> None:
    shown = [one for one in report.pictures if (one.run, one.data, one.kind) == ('first', f'{SUBSET} test', SUSPECTED)]
    suspects = report.runs[0].evaluations[0].result.anatomy.suspects[:2]
    for picture, suspect in zip(shown, suspects, strict=True):
        assert picture.image == suspect.image
        assert f'{suspect.predicted} at score {suspect.score:.3f}' in picture.caption
        assert cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] <= 2 * 320 + 6
    assert shown


def test_a_report_of_many_results_has_one_picture_of_each_kind(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, 'draw', lambda run, evaluation, *numbers: [numbers])
    assert gallery(report.runs)[0] == [(3, 2)] * 6
    assert gallery(report.runs * 3)[0] == [(1, 1)] * 18
