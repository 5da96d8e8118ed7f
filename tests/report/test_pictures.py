"""The report's pictures: drawn from a result and its data alone, with the right verdicts."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_random import matching_of
from pycocotools import mask as mask_api
from synthetic_runs import write_data, write_result

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import file_fingerprint
from armbench_mmdet.report.collect import collect_runs, read_evaluations
from armbench_mmdet.report.page import Report
from armbench_mmdet.report.pictures import KINDS, Picture, choices_of, draw, gallery, judge
from armbench_mmdet.visualization import instances as overlay

SUBSET = SUBSETS[0]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """Predictions that are the ground truth of ``tmp_path/data``, with scores above and below 0.5."""
    return write_result(tmp_path, write_data(tmp_path / 'data'), SUBSET, None, noise_px=0)


def drawn_from(result: Path) -> list[Picture]:
    """The first picture of each kind."""
    (evaluation,), _ = read_evaluations(result.parent)
    return draw('run', evaluation, choices_of(evaluation, per_kind=1))


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_pictures_show_and_count_what_the_files_say(result: Path, tmp_path: Path) -> None:
    truth = json.loads((tmp_path / 'data' / SUBSET / 'test.json').read_text())
    ids = {image['file_name']: image['id'] for image in truth['images']}
    drawn = drawn_from(result)
    assert [one.kind for one in drawn] == list(KINDS)
    detections = json.loads(result.with_suffix('.segm.json').read_text())
    for one in drawn:
        assert (one.run, one.data) == ('run', f'{SUBSET} test')
        height, width = cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert width > 1.5 * height
        assert 'Drawn at score ≥ 0.5 and matched at IoU ≥ 0.5' in one.caption
        there = sum(a['image_id'] == ids[one.image] for a in truth['annotations'])
        seen = sum(d['image_id'] == ids[one.image] and d['score'] >= 0.5 for d in detections)
        assert f'{seen} found, {there - seen} missed, 0 false positives' in one.caption
    assert len({one.image for one in drawn}) == 3
    ranks = [int(re.search(r'rank (\d+) of 6', one.caption)[1]) for one in drawn]
    assert ranks == sorted(ranks)
    assert drawn_from(result) == drawn


def test_data_elsewhere_under_other_names(result: Path, tmp_path: Path) -> None:
    drawn = drawn_from(result)
    data = tmp_path / 'data' / SUBSET
    edit(data / 'test.json', lambda c: c.update(categories=[{'id': 1, 'name': 'bin'}, {'id': 2, 'name': 'item'}]))
    (data / 'images').rename(tmp_path / 'photos')
    elsewhere = {'image_folder': str(tmp_path / 'photos'), 'category_map': {'bin': 'tote', 'item': 'object'}}
    edit(result, lambda content: content['identity']['extra'].update(elsewhere))
    now = file_fingerprint(data / 'test.json')
    edit(result, lambda content: content['identity'].update(data_fingerprint=now))
    assert drawn_from(result) == drawn


GONE = [
    (lambda result, data: shutil.rmtree(data / 'images'), r'image must be an existing file.*\.jpg'),
    (lambda result, data: (data / 'test.json').unlink(), r'test\.json.*gone or another; evaluate again'),
    (lambda result, data: (data / 'test.json').write_text('{}'), 'as it was when evaluated'),
    (lambda result, data: result.with_suffix('.segm.json').write_text('[{'), r'COCO results.*segm\.json'),
    (lambda result, data: result.with_suffix('.segm.matches.npz').unlink(), 'masks and their match table'),
]


@pytest.mark.parametrize(('damage', 'message'), GONE)
def test_what_is_gone_or_changed_is_named(
    damage: Callable[[Path, Path], object], message: str, result: Path, tmp_path: Path
) -> None:
    damage(result, tmp_path / 'data' / SUBSET)
    with pytest.raises(InputError, match=message):
        drawn_from(result)
    pictures, notes = gallery(collect_runs([tmp_path])[0])
    assert (pictures, len(notes)) == ([], 1)
    assert notes[0].startswith(f'{tmp_path.name}: no pictures of {SUBSET} test: ')


def square(left: int, right: int, category: int = 2, **more: object) -> dict:
    bitmap = np.zeros((10, 40), np.uint8, order='F')
    bitmap[:, left:right] = 1
    return {
        'image_id': 1,
        'category_id': category,
        'area': 10 * (right - left),
        'segmentation': mask_api.encode(bitmap),
        **more,
    }


def test_crowds_and_other_classes_are_judged_apart() -> None:
    truth = [square(0, 10), square(24, 40, iscrowd=1), square(12, 16), square(0, 40, category=1)]
    found = [square(0, 9, score=0.9), square(25, 30, score=0.8), square(0, 10, score=0.7), square(0, 40, score=0.6)]
    names = {1: 'tote', 2: 'object'}
    content = {'images': [{'id': 1, 'height': 10, 'width': 40}], 'annotations': truth}
    content['categories'] = [{'id': i, 'name': name} for i, name in names.items()]
    matching = matching_of(content, found)
    real, guessed = judge(matching, 1, not_annotated=['tote'])
    assert [one.verdict for one in real] == [overlay.FOUND, overlay.NOT_COUNTED, overlay.MISSED]
    wrong = overlay.FALSE_POSITIVE
    assert [one.verdict for one in guessed] == [overlay.CORRECT, overlay.NOT_COUNTED, wrong, wrong]
    assert Counter(one.class_name for one in judge(matching, 1)[0]) == {'object': 3, 'tote': 1}


def test_suspected_labels_are_shown_close_up(report: Report) -> None:
    suspects = [run.evaluations[0].result.anatomy.suspects[:2] for run in report.runs]
    shown = [
        [one for one in report.suspects if (one.run, one.data) == (run.name, f'{SUBSET} test')] for run in report.runs
    ]
    assert [[one.image for one in own] for own in shown] == [[one.image for one in own] for own in suspects]
    for picture, suspect in zip(shown[1], suspects[1], strict=True):
        assert f'{suspect.predicted} at score {suspect.score:.3f}' in picture.caption
        assert cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] <= 2 * 320 + 6
    assert not {one.kind for one in report.pictures} - set(KINDS)


def test_a_report_of_many_results_has_one_picture_of_each_kind(report: Report) -> None:
    def drawn(copies: int) -> int:
        pictures, notes = gallery(report.runs[:1] * copies)
        assert notes == []
        return sum(one.kind in KINDS for one in pictures)

    assert drawn(1) == 3 * 3 * 2  # subsets, kinds, six images in each
    assert drawn(5) == 5 * 3 * 3
