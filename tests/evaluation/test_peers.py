"""Predictions of other models (``peers/README.md``): pycocotools' numbers, what is refused, what is flagged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_reference import Row, numbers_of, predictions_near, read_truth, reference, write_rows
from pycocotools import mask as mask_api

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.coco_results import drift_table, evaluate_results
from armbench_mmdet.evaluation.result import Result, file_fingerprint, read_result


@pytest.fixture(scope='module')
def truth(minibench_root: Path) -> Row:
    return read_truth(minibench_root)


@pytest.fixture
def rows(truth: Row) -> list[Row]:
    return predictions_near(truth)


@pytest.fixture
def score(minibench_root: Path, tmp_path: Path) -> Callable[..., Result]:
    """Writes predictions to a file and evaluates it."""
    folder = minibench_root / 'mix-object-tote'
    source = GroundTruthSource(str(folder / 'test.json'), str(folder / 'images'))
    return lambda rows, **options: evaluate_results(write_rows(tmp_path, rows), source, **options)


NAMINGS: dict[str, Callable[[Path], Row]] = {
    'stem': lambda file: {'image_id': file.stem},
    'name': lambda file: {'image_id': file.name},
    'path': lambda file: {'image_id': f'/data/images/{file.stem}.png'},
    'beside': lambda file: {'image_id': 7, 'file_name': file.name},
}


@pytest.mark.parametrize('naming', NAMINGS)
def test_images_by_name(naming: str, truth: Row, rows: list[Row], score: Callable[..., Result]) -> None:
    files = {image['id']: Path(image['file_name']) for image in truth['images']}
    sent = [{**row, **NAMINGS[naming](files[row['image_id']])} for row in rows]
    np.testing.assert_array_equal(numbers_of(score(sent), 'segm'), numbers_of(score(rows), 'segm'))


def test_numbers_may_be_stems_and_must_not_be_both(truth: Row, rows: list[Row], tmp_path: Path) -> None:
    """Ultralytics writes a stem of digits as a number."""
    renamed = {**truth, 'images': [{**one, 'file_name': f'0{one["id"] + 1}.jpg'} for one in truth['images']]}
    source = GroundTruthSource(str(write_rows(tmp_path, renamed, 'test.json')))
    right = numbers_of(evaluate_results(write_rows(tmp_path, rows), source), 'segm')
    stems = write_rows(tmp_path, [{**row, 'image_id': row['image_id'] + 1} for row in rows])
    np.testing.assert_array_equal(numbers_of(evaluate_results(stems, source), 'segm'), right)
    some = write_rows(tmp_path, [{**row, 'image_id': row['image_id'] + 1} for row in rows if row['image_id'] < 4])
    with pytest.raises(InputError, match='image_id must be unambiguous, got 2'):
        evaluate_results(some, source)


def test_categories_by_map_and_by_name(rows: list[Row], score: Callable[..., Result]) -> None:
    expected = numbers_of(score(rows), 'segm')
    shifted = [{**row, 'category_id': row['category_id'] - 1} for row in rows]
    by_map = score(shifted, category_map={0: 'tote', 1: 'object'})
    named = [{**row, 'category_id': ('', 'bin', 'Object ')[row['category_id']]} for row in rows]
    by_name = score(named, category_map={'bin': 'tote'})
    table = [{'id': 0, 'name': 'tote'}, {'id': 1, 'name': 'Item'}]
    by_table = score({'annotations': shifted, 'categories': table}, category_map={'item': 'object'})
    for result in (by_map, by_name, by_table):
        np.testing.assert_array_equal(numbers_of(result, 'segm'), expected)
    ignored = score(rows, category_map={1: 'tote', 2: None})
    assert ignored.segm.per_class['object'].mAP == 0
    assert 'categories that are ignored' in ignored.identity.extra['flags'][0]


def changed(**fields: Any) -> Callable[[list[Row]], Any]:
    return lambda rows: [{**rows[0], **fields}, *rows[1:]]


def with_mask(mask: Callable[[Row], Any]) -> Callable[[list[Row]], Any]:
    return lambda rows: [{**row, 'segmentation': mask(row['segmentation'])} for row in rows]


def scaled(rle: Row, factor: float) -> list[list[float]]:
    """The outlines as polygons of other units."""
    found, _ = cv2.findContours(mask_api.decode(rle), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [(factor * outline).ravel().tolist() for outline in found if len(outline) > 2] or [[0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda rows: [], 'predictions must be given, got none'),
        (lambda rows: {'results': rows}, 'missing required field `annotations`'),
        (lambda rows: [{**row, 'segmentation': []} for row in rows], r'must have masks, got (\d+) of \1 without'),
        (lambda rows: [{k: v for k, v in row.items() if k != 'segmentation'} for row in rows], 'a box is no mask'),
        (changed(segmentation=[[10, 10, 50, 50]]), 'must have a polygon of three points'),
        (changed(segmentation={'size': [128, 160], 'counts': [5, 7]}), 'must add up to the 20480 pixels'),
        (changed(segmentation={'size': [128, 160], 'counts': 'nonsense~'}), 'must add up to the 20480 pixels'),
        (with_mask(lambda rle: {**rle, 'size': rle['size'][::-1]}), r'must be that of the image, \[128, 160\]'),
        (with_mask(lambda rle: scaled(rle, 4)), 'polygons must lie in the image, 160 px wide'),
        (with_mask(lambda rle: scaled(rle, 1 / 160)), 'polygons must be in pixels'),
        (changed(image_id=99), 'must be an image of the ground truth, .* got 99 .1 of'),
        (changed(image_id='other.jpg'), "got 'other.jpg'"),
        (changed(category_id=0), '1 = tote, 2 = object.*got 0 .1 predictions'),
        (changed(category_id='box'), "got 'box' "),
        (changed(score=None), 'must have a score, got 1 of'),
        (changed(score='high'), r'got `str` - at `\$\[0\].score`'),
        (changed(bbox=[1, 2, 3]), r'at `\$\[0\].bbox`'),
    ],
)
def test_refused(change: Callable[[list[Row]], Any], message: str, rows: list[Row], score: Callable) -> None:
    with pytest.raises(InputError, match=message):
        score(change(rows))


def boxed(rle: Row) -> list[list[float]]:
    x, y, w, h = mask_api.toBbox(rle).tolist()
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.mark.parametrize(
    ('change', 'flag'),
    [
        (with_mask(boxed), '100% of the masks are rectangles'),
        (lambda rows: [{**row, 'category_id': 3 - row['category_id']} for row in rows], 'tote and object swapped'),
        (lambda rows: [row for row in rows if row['score'] > 0.3], 'no score is below 0.3'),
        (lambda rows: rows[:1] * 301 + rows[1:], '1 images have more than 100 predictions, up to 3'),
        (lambda rows: [row for row in rows if row['image_id'] > 1], '1 of 4 images have no prediction'),
    ],
)
def test_flagged(change: Callable[[list[Row]], Any], flag: str, rows: list[Row], score: Callable) -> None:
    flags = score(change(rows)).identity.extra['flags']
    assert [one for one in flags if flag in one], flags
    assert len(flags) <= 2


def test_mask_nms_on_the_way_in(rows: list[Row], score: Callable[..., Result]) -> None:
    twice = [*rows, *({**row, 'score': row['score'] / 2} for row in rows)]
    result, plain = score(twice, mask_nms_iou=0.99), score(rows)
    assert result.segm.mAP == plain.segm.mAP > score(twice, mask_nms_iou=1).segm.mAP
    assert f'mask NMS at IoU 0.99 left out {len(rows)} of {len(twice)} predictions' in result.identity.extra['flags']


def test_honest_predictions_have_no_flags_and_leave_a_result(rows, score, tmp_path: Path, minibench_root: Path) -> None:
    known = file_fingerprint(minibench_root / 'mix-object-tote/test.json')
    for fingerprint in (known, known.removeprefix('sha256:')):
        score(rows, out_dir=tmp_path / 'results', fingerprint=fingerprint)
    with pytest.raises(InputError, match=r'data-fingerprint must be that of the annotation file, sha256:.*other data'):
        score(rows, fingerprint='0123')
    result = read_result(tmp_path / 'results/mix-object-tote_test.json')
    assert result.identity.extra['flags'] == []
    assert result.identity.extra['predictions'] == str(tmp_path / 'predictions.json')
    assert result.segm.confidence['mean'].low < result.segm.mAP < result.segm.confidence['mean'].high
    assert len(json.loads((tmp_path / 'results/mix-object-tote_test.segm.json').read_text())) == len(rows)


PEERS = Path(__file__).parent / 'peers'
ANN_FILE = PEERS / 'mix-object-tote/test.json'
LOSSLESS = 'detectron2/coco_instances_results.json'


def result_of(file: str) -> Result:
    return evaluate_results(PEERS / file, GroundTruthSource(str(ANN_FILE)))


def by_the_book(file: str) -> tuple[Row, list[Row]]:
    """The ground truth, and the predictions of a file under its ids, with what the format lacks."""
    truth, content = (json.loads(path.read_text()) for path in (ANN_FILE, PEERS / file))
    ids = {Path(image['file_name']).stem: image['id'] for image in truth['images']}
    rows = content['annotations'] if isinstance(content, dict) else content
    table = {image['id']: Path(image['file_name']).stem for image in content['images']} if rows is not content else {}
    for row in rows:
        name = table.get(row['image_id'], row['image_id'])
        row |= {'image_id': ids.get(name, name), 'score': row.get('score', 1.0)}
    return truth, rows


@pytest.mark.parametrize(
    ('file', 'flags'),
    [
        (LOSSLESS, []),
        ('rfdetr/results.json', ['34 predictions have no box']),
        ('ultralytics/predictions.json', []),
        ('supervision/annotations.json', ['no prediction has a score']),
    ],
)
def test_numbers_of_files_that_other_software_wrote(file: str, flags: list[str]) -> None:
    result, lossless = result_of(file), result_of(LOSSLESS)
    truth, rows = by_the_book(file)
    for iou_type in ('segm', 'bbox') if 'bbox' in rows[0] else ('segm',):
        np.testing.assert_allclose(numbers_of(result, iou_type), reference(truth, rows, iou_type), atol=1e-9)
    is_lossless = not file.startswith('supervision')  # for masks: five places of a score keep their order here
    assert np.allclose(numbers_of(result, 'segm'), numbers_of(lossless, 'segm'), rtol=0, atol=1e-9) == is_lossless
    drift = [line.split()[-1] for line in drift_table(result, lossless).splitlines() if line.startswith('segm')]
    assert len(drift) == 9 - sum(value is None for value in result.segm.numbers().values())
    assert (set(drift) == {'+0.000000'}) == is_lossless
    found = result.identity.extra['flags']
    assert len(found) == len(flags)
    assert all(wanted in one for wanted, one in zip(flags, found, strict=True)), found
