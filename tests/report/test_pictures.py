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
from armbench_mmdet.report.pictures import LARGEST_BYTES, judge, match_greedily, pictures
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
def data(minibench_root: Path, tmp_path: Path) -> Path:
    shutil.copytree(minibench_root, tmp_path / 'data')
    return tmp_path / 'data'


@pytest.fixture
def result(data: Path, tmp_path: Path) -> Path:
    return make_result(ArmbenchDataset(data_root=data, split='test', test_mode=True, pipeline=[]), tmp_path)


def test_pictures_of_every_class_and_kind(result: Path) -> None:
    drawn = pictures(result, per_kind=1)
    kinds = [(one.class_name, one.kind) for one in drawn]
    assert kinds == [(name, kind) for name in ('all', 'tote', 'object') for kind in ('best', 'median', 'worst')]
    for one in drawn:
        assert (one.subset, one.split) == (SUBSET, 'test')
        assert len(one.jpeg) <= LARGEST_BYTES
        height, width = cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert width > 1.5 * height
        assert one.image.endswith('.jpg')
        assert f'{one.image_score:.3f}' in one.caption
    for start in (0, 3, 6):
        scores = [one.image_score for one in drawn[start : start + 3]]
        assert scores == sorted(scores, reverse=True)
        assert len({one.image for one in drawn[start : start + 3]}) == 3
    assert len({one.jpeg for one in drawn}) == len(drawn)
    assert pictures(result, per_kind=1) == drawn


def test_a_caption_counts_what_the_picture_shows(result: Path) -> None:
    best, median = pictures(result, per_kind=1)[:2]
    # The first image: everything found, and the strip wrongly; the others each miss one more.
    assert '0 missed, 1 false positives' in best.caption
    assert 'rank 1 of 4' in best.caption
    assert ' 1 missed, 1 false positives' in median.caption
    without = pictures(result, per_kind=1, score_threshold=0.7)[0]
    assert 'score ≥ 0.7' in without.caption
    assert '0 missed, 0 false positives' in without.caption
    assert without.jpeg != best.jpeg


def test_a_result_says_where_its_data_lie(result: Path, data: Path) -> None:
    assert read_result(result).identity.extra == {
        'ann_file': str(data / SUBSET / 'test.json'),
        'image_folder': str(data / SUBSET / 'images'),
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


def square(left: int, right: int, image_id: int = 1, category: int = 2, **more: object) -> dict:
    bitmap = np.zeros((10, 40), np.uint8, order='F')
    bitmap[:, left:right] = 1
    return {'image_id': image_id, 'category_id': category, 'segmentation': mask_api.encode(bitmap), **more}


def test_crowds_and_other_classes_are_judged_apart() -> None:
    truth = [square(0, 10), square(24, 40, iscrowd=1), square(12, 16), square(0, 40, category=1)]
    found = [square(0, 9, score=0.9), square(25, 30, score=0.8), square(0, 10, score=0.7), square(0, 40, score=0.6)]
    image = {'id': 1, 'height': 10, 'width': 40}
    real, guessed = judge(image, {2: 'object'}, by_image_and_class(truth), by_image_and_class(found))
    assert [one.verdict for one in real] == [overlay.FOUND, overlay.NOT_COUNTED, overlay.MISSED]
    wrong = overlay.FALSE_POSITIVE
    assert [one.verdict for one in guessed] == [overlay.CORRECT, overlay.NOT_COUNTED, wrong, wrong]
    both = judge(image, {1: 'tote', 2: 'object'}, by_image_and_class(truth), by_image_and_class(found))
    assert Counter(one.class_name for one in both[0]) == {'object': 3, 'tote': 1}


def test_data_elsewhere_under_other_names(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / SUBSET / 'test.json').read_text())
    for category, name in zip(content['categories'], ('bin', 'item'), strict=True):
        category['name'] = name
    (tmp_path / 'mine.json').write_text(json.dumps(content))
    (data / SUBSET / 'images').rename(tmp_path / 'photos')
    options = {'ann_file': str(tmp_path / 'mine.json'), 'data_prefix': {'img': str(tmp_path / 'photos')}}
    names = {'bin': 'tote', 'item': 'object'}
    dataset = ArmbenchDataset(**options, category_map=names, split='test', test_mode=True, pipeline=[])
    assert len(pictures(make_result(dataset, tmp_path), per_kind=1)) == 9


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
    (lambda result, data: result.with_suffix('.segm.matches.npz').unlink(), r'match table.*npz'),
    (edit_result(lambda content: content.update(segm=None)), 'must have masks'),
    (edit_result(lambda content: content['identity'].update(extra={})), 'name its annotation file'),
]


@pytest.mark.parametrize(('damage', 'message'), GONE)
def test_what_is_gone_or_changed_is_named(
    damage: Callable[[Path, Path], object], message: str, result: Path, data: Path
) -> None:
    damage(result, data)
    with pytest.raises(InputError, match=message):
        pictures(result)
