"""The report's pictures: drawn from a result and its data alone, with the right verdicts."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_random import matching_of
from pycocotools import mask as mask_api
from synthetic_runs import write_data, write_result

from armbench_mmdet import visualization as overlay
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import file_fingerprint
from armbench_mmdet.report.collect import collect_runs, read_evaluations
from armbench_mmdet.report.page import Report
from armbench_mmdet.report.pictures import KINDS, Picture, draw, gallery, judge

SUBSET = SUBSETS[0]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """Predictions that are the ground truth of ``tmp_path/data``, with scores above and below 0.5."""
    return write_result(tmp_path, write_data(tmp_path / 'data'), SUBSET, None, noise_px=0)


def drawn_from(result: Path) -> list[Picture]:
    """The first picture of each kind."""
    (evaluation,), _ = read_evaluations(result.parent)
    return draw('run', evaluation, per_kind=1)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_pictures_are_of_each_kind_by_rank(result: Path) -> None:
    drawn = drawn_from(result)
    assert [(one.run, one.data, one.kind) for one in drawn] == [('run', f'{SUBSET} test', kind) for kind in KINDS]
    assert len({one.image for one in drawn}) == 3
    for one in drawn:
        height, width = cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert width > 1.5 * height
    ranks = [int(re.search(r'rank (\d+) of 6', one.caption)[1]) for one in drawn]
    assert ranks == sorted(ranks)


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
    for run in report.runs:
        shown = [one for one in report.suspects if (one.run, one.data) == (run.name, f'{SUBSET} test')]
        for picture, suspect in zip(shown, run.evaluations[0].result.anatomy.suspects[:2], strict=True):
            assert picture.image == suspect.image
            assert f'{suspect.predicted} at score {suspect.score:.3f}' in picture.caption
            assert cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] <= 2 * 320 + 6
    assert report.suspects


def test_a_report_of_many_results_has_one_picture_of_each_kind(report: Report) -> None:
    assert len(report.pictures) == 2 * 3 * 3 * 2  # runs, subsets, kinds, a third of six images
    pictures, _ = gallery(report.runs[:1] * 5)
    assert sum(one.kind in KINDS for one in pictures) == 5 * 3 * 3
