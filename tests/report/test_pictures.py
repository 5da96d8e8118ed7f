"""The report's pictures: drawn from a result and its data alone, with the right verdicts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api
from test_image_scores import random_boxes

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.matches import FOUND, match_table
from armbench_mmdet.evaluation.protocol import Matching, by_image_and_class
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.report.collect import collect_runs, read_evaluations
from armbench_mmdet.report.page import Report
from armbench_mmdet.report.pictures import KINDS, Picture, choices_of, draw, gallery, judge, match_greedily
from armbench_mmdet.visualization import instances as overlay

SUBSET = 'mix-object-tote'
IDENTITY = {'seed': 3, 'extra': {'checkpoint_sha256': 'abc'}}


def predictions(record: dict, count: int, score: float) -> dict:
    """The first ``count`` instances exactly, and a strip at the top that is nothing."""
    size = (record['height'], record['width'])
    truth = record['instances'][:count]
    masks = [mask_api.decode(mask_api.merge(mask_api.frPyObjects(one['mask'], *size))) for one in truth]
    strip = np.zeros(size, np.uint8)
    strip[:4] = 1
    instances = InstanceData(
        masks=torch.from_numpy(np.stack([*masks, strip])).bool(),
        bboxes=torch.tensor([*(one['bbox'] for one in truth), [0, 0, size[1], 4]], dtype=torch.float32),
        labels=torch.tensor([*(one['bbox_label'] for one in truth), 1]),
        scores=torch.tensor([*([score] * count), 0.6]),
    )
    return {'img_id': record['img_id'], 'ori_shape': size, 'pred_instances': instances}


def make_result(dataset: ArmbenchDataset, folder: Path) -> Path:
    """Evaluate predictions that get worse from image to image."""
    stem = str(folder / f'{dataset.subset}_{dataset.split}')
    metric = ArmbenchMetric(result_file=f'{stem}.json', coco_json_prefix=stem, log_table=False, identity=IDENTITY)
    metric.dataset_meta = dataset.metainfo
    records = [dataset.get_data_info(i) for i in range(len(dataset))]
    metric.process({}, [predictions(one, max(len(one['instances']) - i, 0), 0.9) for i, one in enumerate(records)])
    metric.evaluate(len(dataset))
    return Path(f'{stem}.json')


@pytest.fixture
def photos(minibench_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(minibench_root, tmp_path / 'data')
    return tmp_path / 'data'


@pytest.fixture
def result(photos: Path, tmp_path: Path) -> Path:
    return make_result(
        ArmbenchDataset(data_root=photos, split='test', test_mode=True, pipeline=[]), tmp_path / 'results'
    )


def drawn_from(result: Path) -> list[Picture]:
    """The first pictures of each class and kind."""
    (evaluation,), _ = read_evaluations(result.parent)
    return draw('run', evaluation, [choice for choice in choices_of(evaluation) if choice.place == 0])


def test_pictures_of_every_class_and_kind(result: Path) -> None:
    drawn = drawn_from(result)
    kinds = [(one.class_name, one.kind) for one in drawn]
    assert kinds == [(name, kind) for name in ('all', 'tote', 'object') for kind in KINDS]
    for one in drawn:
        assert (one.run, one.data) == ('run', f'{SUBSET} test')
        height, width = cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert width > 1.5 * height
        assert one.image.endswith('.jpg')
    for start in (0, 3, 6):
        assert len({one.image for one in drawn[start : start + 3]}) == 3
    assert len({one.jpeg for one in drawn}) == len(drawn)
    assert drawn_from(result) == drawn


def test_a_caption_counts_what_the_picture_shows(result: Path) -> None:
    best, median = drawn_from(result)[:2]
    # The first image: everything found, and the strip wrongly; the others each miss one more.
    assert '0 missed, 1 false positives' in best.caption
    assert 'rank 1 of 4' in best.caption
    assert 'score ≥ 0.5' in best.caption
    assert ' 1 missed, 1 false positives' in median.caption


def test_a_result_says_where_its_data_lie(result: Path, photos: Path) -> None:
    assert read_result(result).identity.extra == {
        'ann_file': str(photos / SUBSET / 'test.json'),
        'image_folder': str(photos / SUBSET / 'images'),
        'checkpoint_sha256': 'abc',
    }


@pytest.mark.parametrize('seed', range(8))
def test_verdicts_are_cocos_matching(seed: int) -> None:
    matching = Matching(*random_boxes(seed), 'bbox')
    table = match_table(matching)
    annotations = by_image_and_class(matching.annotations)
    for (image_id, category), ious in matching.ious.items():
        pair = annotations[image_id, category]
        taken, verdicts = match_greedily(ious, np.array([bool(a['iscrowd']) for a in pair]))
        own = table.classes[matching.classes[category - 1]]
        rows = own.image == table.image_ids.tolist().index(image_id)
        outcome = own.outcome[0, rows].tolist()
        names = {0: overlay.FALSE_POSITIVE, FOUND: overlay.CORRECT, 2: overlay.NOT_COUNTED}
        assert verdicts == [names[value] for value in outcome]
        assert taken.sum() == outcome.count(FOUND)


def square(left: int, right: int, category: int = 2, **more: object) -> dict:
    bitmap = np.zeros((10, 40), np.uint8, order='F')
    bitmap[:, left:right] = 1
    return {'image_id': 1, 'category_id': category, 'segmentation': mask_api.encode(bitmap), **more}


def test_crowds_and_other_classes_are_judged_apart() -> None:
    truth = [square(0, 10), square(24, 40, iscrowd=1), square(12, 16), square(0, 40, category=1)]
    found = [square(0, 9, score=0.9), square(25, 30, score=0.8), square(0, 10, score=0.7), square(0, 40, score=0.6)]
    names = {1: 'tote', 2: 'object'}
    content = {'images': [{'id': 1, 'height': 10, 'width': 40}], 'annotations': truth}
    content['categories'] = [{'id': i, 'name': name} for i, name in names.items()]
    matching = Matching(content, found, 'segm')
    real, guessed = judge(matching, 1, {2: 'object'})
    assert [one.verdict for one in real] == [overlay.FOUND, overlay.NOT_COUNTED, overlay.MISSED]
    wrong = overlay.FALSE_POSITIVE
    assert [one.verdict for one in guessed] == [overlay.CORRECT, overlay.NOT_COUNTED, wrong, wrong]
    assert Counter(one.class_name for one in judge(matching, 1, names)[0]) == {'object': 3, 'tote': 1}


def test_data_elsewhere_under_other_names(photos: Path, tmp_path: Path) -> None:
    content = json.loads((photos / SUBSET / 'test.json').read_text())
    for category, name in zip(content['categories'], ('bin', 'item'), strict=True):
        category['name'] = name
    (tmp_path / 'mine.json').write_text(json.dumps(content))
    (photos / SUBSET / 'images').rename(tmp_path / 'photos')
    options = {'ann_file': str(tmp_path / 'mine.json'), 'data_prefix': {'img': str(tmp_path / 'photos')}}
    names = {'bin': 'tote', 'item': 'object'}
    dataset = ArmbenchDataset(**options, category_map=names, split='test', test_mode=True, pipeline=[])
    (folder := tmp_path / 'results').mkdir()
    assert len(drawn_from(make_result(dataset, folder))) == 9


def edit_result(change: Callable[[dict], object]) -> Callable[[Path, Path], object]:
    def edit(result: Path, data: Path) -> None:
        content = json.loads(result.read_text())
        change(content)
        result.write_text(json.dumps(content))

    return edit


GONE = [
    (lambda result, data: shutil.rmtree(data / SUBSET / 'images'), r'images must be there.*\.jpg'),
    (lambda result, data: (data / SUBSET / 'test.json').unlink(), r'test\.json.*gone; evaluate again'),
    (lambda result, data: (data / SUBSET / 'test.json').write_text('{}'), 'as it was when evaluated'),
    (lambda result, data: result.with_suffix('.segm.json').unlink(), r'COCO results.*segm\.json'),
    (lambda result, data: result.with_suffix('.segm.json').write_text('[{'), r'COCO results.*segm\.json'),
    (lambda result, data: result.with_suffix('.segm.matches.npz').unlink(), r'masks and their match table'),
    (edit_result(lambda content: content.update(segm=None)), 'must have masks'),
    (edit_result(lambda content: content['identity'].update(extra={})), 'name its annotation file'),
]


@pytest.mark.parametrize(('damage', 'message'), GONE)
def test_what_is_gone_or_changed_is_named(
    damage: Callable[[Path, Path], object], message: str, result: Path, photos: Path
) -> None:
    damage(result, photos)
    with pytest.raises(InputError, match=message):
        drawn_from(result)


def test_every_result_has_pictures_of_every_kind(report: Report) -> None:
    found = {(one.run, one.data, one.class_name, one.kind) for one in report.pictures}
    assert len(found) == 2 * 3 * 3 * 3
    assert all(one.source.startswith('data:image/jpeg;base64,/9j/') for one in report.pictures)


def test_lower_ranks_give_way_where_there_are_too_many(report: Report) -> None:
    every, none = gallery(report.runs[:1])
    kept, notes = gallery(report.runs[:1], most=3 * 9)
    best = [one for one in every if ', rank 1 of' in one.caption and one.kind == 'best']
    assert (none, len(kept), len(best)) == ([], 3 * 9, 3 * 3)
    assert set(best) < set(kept) < set(every)
    assert notes == [f'{len(every) - len(kept)} pictures of lower ranks are left out to keep the page small']
    assert len(gallery(report.runs[:1], most=1)[0]) == 3 * len(KINDS)


def test_a_result_that_cannot_be_drawn_is_one_line(work_dirs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(work_dirs[0], tmp_path / 'run', ignore=shutil.ignore_patterns('[zs]*_test.*', '*.segm.json'))
    shots, notes = gallery(collect_runs([tmp_path / 'run'])[0])
    assert (shots, len(notes)) == ([], 1)
    assert notes[0].startswith('run: no pictures of mix-object-tote test: ')
