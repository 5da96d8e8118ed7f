"""The data set, beside stock ``CocoDataset``, and its ground truth; its labels, by the names and ids of categories."""

import json
import logging
import pickle
import re
import shutil
from pathlib import Path

import coco_files
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import ExifTags, Image

from armbench_mmdet.configs import parse_options
from armbench_mmdet.datasets import ArmbenchDataset, images, resolve_data_root
from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.errors import InputError


@pytest.fixture
def logged(monkeypatch) -> list[tuple[str, int]]:
    lines: list[tuple[str, int]] = []
    monkeypatch.setattr(images, 'print_log', lambda message, logger, level: lines.append((message, level)))
    return lines


@pytest.mark.parametrize(
    'options',
    [
        {'test_mode': True, 'filter_cfg': {'filter_empty_gt': True, 'min_size': 1000}},
        {'metainfo': {'classes': ('object',)}, 'filter_cfg': {'filter_empty_gt': True}},
        {'filter_cfg': {'filter_empty_gt': True, 'min_size': coco_files.HEIGHT + 1}},
        {'filter_cfg': {'min_size': 10}, 'indices': 5},
        {'indices': -4},
        {'indices': [3, 1, 1, -1]},
        {'lazy_init': True},
        {'serialize_data': False},
    ],
    ids=str,
)
@pytest.mark.parametrize('seed', [0, 1])
def test_the_records_are_those_of_stock_coco_dataset(tmp_path, options, seed):
    coco_files.write_split(tmp_path, coco_files.random_document(seed))
    common = {'ann_file': 'mix-object-tote/train.json', 'data_root': str(tmp_path), **options}
    for_stock = {'data_prefix': {'img': 'mix-object-tote/images'}, 'metainfo': {'classes': ('tote', 'object')}}
    stock, ours = CocoDataset(**for_stock | common), ArmbenchDataset(**common)
    assert len(ours) == len(stock)
    assert [ours.get_data_info(i) for i in range(len(ours))] == [stock.get_data_info(i) for i in range(len(stock))]
    assert [ours.get_cat_ids(i) for i in range(len(ours))] == [stock.get_cat_ids(i) for i in range(len(stock))]
    assert (ours.cat_ids, ours.cat2label) == (stock.cat_ids, stock.cat2label)
    if len(ours):
        assert ours.get_data_info(-1) == stock.get_data_info(-1)
        assert isinstance(ours[0]['img_path'], str)


def test_records_are_made_afresh_and_survive_pickling(tmp_path):
    coco_files.write_split(tmp_path, coco_files.document())
    data_set = ArmbenchDataset(data_root=tmp_path)
    record = data_set.get_data_info(0)
    record['instances'][0]['mask'][0][0] = -1
    record['instances'].clear()
    for one in (data_set, pickle.loads(pickle.dumps(data_set))):
        assert one.get_data_info(0)['instances'][0]['mask'][0][0] == 4


def test_the_root_is_the_argument_then_the_variable_then_the_default(monkeypatch, tmp_path):
    assert resolve_data_root() == Path('data/armbench-segmentation-0.1')
    monkeypatch.setenv('ARMBENCH_ROOT', '/somewhere')
    assert resolve_data_root() == Path('/somewhere')
    assert resolve_data_root(tmp_path) == tmp_path


def test_what_is_missing_is_named_with_how_to_get_it(tmp_path):
    file = coco_files.write_split(tmp_path, coco_files.document())
    shutil.rmtree(file.parent / 'images')
    with pytest.raises(InputError, match=r'image folder must exist.*mix-object-tote/images'):
        ArmbenchDataset(data_root=tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=r'annotation file must exist.*mix-object-tote/train\.json') as caught:
        ArmbenchDataset(data_root=tmp_path)
    for remedy in ('armbench.s3-website-us-east-1.amazonaws.com', 'ARMBENCH_ROOT', 'tools/make_minibench.py'):
        assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'subset': 'mix'}, 'subset must be one of'),
        ({'split': 'training'}, 'split must be one of'),
        ({'category_map': {'tote': 'box'}}, 'category_map values'),
        ({'category_map': 'parcel=object'}, 'category_map must be a dict'),
        ({'metainfo': {'classes': ('person',)}}, 'metainfo classes'),
        ({'metainfo': {'classes': ()}}, 'metainfo classes'),
        ({'filter_cfg': {'min_size': 100}}, 'filter_cfg must leave some images'),
        ({'data_prefix': {'img_path': 'x'}}, 'data_prefix'),
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(tmp_path, options, message):
    coco_files.write_split(tmp_path, coco_files.document())
    with pytest.raises(InputError, match=message):
        ArmbenchDataset(data_root=tmp_path, **options)


def test_photos_that_exif_mirrors_and_classes_without_a_score_are_said_at_the_start(tmp_path, logged):
    document = coco_files.document()
    document['images'][0]['file_name'] = 'mirrored.jpg'
    document['annotations'].pop(0)
    coco_files.write_split(tmp_path, document)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 2
    coco_files.write_image(tmp_path / 'mix-object-tote/images/mirrored.jpg', exif=exif)
    ArmbenchDataset(data_root=tmp_path, test_mode=True)
    lines = '\n'.join(line for line, _ in logged)
    assert 'turned or mirrored as its EXIF orientation (2)' in lines
    assert 'no tote to use: it has no score here' in lines


def test_what_is_left_out_is_logged_as_one_table_once(tmp_path, logged):
    document = coco_files.document()
    document['annotations'][0]['bbox'] = [100, 100, 5, 5]
    document['annotations'][1]['segmentation'] = []
    document['images'].append({'id': 9, 'file_name': 'C.jpg', 'width': 8, 'height': 8})
    del document['categories']
    coco_files.write_split(tmp_path, document)
    for _ in range(2):
        ArmbenchDataset(data_root=tmp_path, filter_cfg={'filter_empty_gt': True})
    (table, level), (note, note_level), (class_note, _) = logged
    assert (level, note_level) == (logging.INFO, logging.WARNING)
    assert class_note.endswith('no tote to use: the model cannot learn it')
    assert table.splitlines() == [
        f'{tmp_path}/mix-object-tote/train.json: 2 images, 0 totes, 1 objects; left out:',
        '          1  annotations without a mask (ids 2)',
        '          1  annotations with a box outside the image (ids 1)',
        '          1  images without annotations (ids 9)',
    ]
    assert 'assuming ids 1 = tote and 2 = object' in note


def test_own_files_may_be_given_as_in_mmdet(tmp_path):
    mine = coco_files.write_json(tmp_path / 'annotations/mine.json', coco_files.document())
    coco_files.write_json(tmp_path / 'export/_annotations.coco.json', coco_files.document())
    for picture in ('pictures/A.jpg', 'export/A.jpg'):
        coco_files.write_image(tmp_path / picture)
    for picture, options in (
        ('pictures/A.jpg', {'ann_file': 'annotations/mine.json', 'data_prefix': {'img': 'pictures/'}}),
        ('pictures/A.jpg', {'ann_file': str(mine), 'data_prefix': {'img': str(tmp_path / 'pictures')}}),
        ('export/A.jpg', {'ann_file': 'export/_annotations.coco.json'}),
    ):
        data_set = ArmbenchDataset(data_root=str(tmp_path), **options)
        assert data_set.get_data_info(0)['img_path'] == str(tmp_path / picture)


def test_the_ground_truth_is_what_the_file_holds(tmp_path):
    document = coco_files.random_document(0)
    truth = GroundTruthSource(str(coco_files.write_json(tmp_path / 'a.json', document))).load()
    given = GroundTruth.of(document)
    assert (truth.images, truth.categories) == (given.images, given.categories)
    rows = np.argsort(truth.image_ids, kind='stable'), np.argsort(given.image_ids, kind='stable')
    (*ours, own), (*theirs, other) = truth.take(rows[0])[2:], given.take(rows[1])[2:]
    assert [column.tolist() for column in ours] == [column.tolist() for column in theirs]
    assert list(own) == list(other)


def test_the_cache_folder_of_the_data_set_is_everyones(minibench_root, tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'default'))
    data_set = ArmbenchDataset(data_root=minibench_root, split='test', cache_dir=tmp_path / 'mine')
    of_a_checkpoint = GroundTruthSource.of(json.loads(json.dumps(data_set.metainfo)))
    of_a_result = GroundTruthSource.from_location(of_a_checkpoint.location())
    assert of_a_checkpoint == data_set.ground_truth == of_a_result
    assert of_a_result.load().ids.tolist() == data_set.columns.annotation_ids.tolist()
    assert (tmp_path / 'mine').is_dir()
    assert not (tmp_path / 'default').exists()


MIX, ZOOMED, SAME = 'mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set'
BOTH, ONE = [(1, 'Tote'), (2, 'Object')], [(1, 'Object')]

LABELS = [  # folder, categories, ids of three annotations (the first two of one image), their labels, the map if any
    (MIX, BOTH, [1, 2, 2], [0, 1, 1]),
    (ZOOMED, BOTH, [1, 2, 1], [0, 1, 0]),
    (SAME, ONE, [1, 1, 1], [1, 1, 1]),
    (SAME, BOTH, [2, 2, 2], [1, 1, 1]),
    (MIX, None, [1, 2, 2], [0, 1, 1]),
    (MIX, [], [1, 2, 1], [0, 1, 0]),
    (ZOOMED, None, [2, 2, 1], [1, 1, 0]),
    (SAME, None, [1, 1, 1], [1, 1, 1]),
    (MIX, [(2, 'tote'), (1, ' OBJECT ')], [2, 1, 1], [0, 1, 1]),  # swapped
    (MIX, ONE, [1, 1, 1], [1, 1, 1]),  # one class only, by its name
    (MIX, [(0, 'background'), (1, 'Tote'), (2, 'Object')], [1, 2, 2], [0, 1, 1]),
    ('elsewhere', [(0, 'tote'), (1, 'object')], [0, 1, 1], [0, 1, 1]),
    ('elsewhere', ONE, [1, 1, 1], [1, 1, 1]),
    (MIX, [(1, 'tote'), (2, 'Tote')], [1, 2, 2], [0, 0, 0]),
    (MIX, [(1, 'bin'), (2, 'item')], [1, 2, 2], [0, 1, 1], {'Bin': 'tote', 'item': 'Object'}),
    (MIX, [(1, 'bin'), (2, 'item')], [1, 2, 2], [0, 1, 1], {1: 'tote', '2': 'object'}),
    (MIX, [(1, 'bin'), (2, 'object')], [1, 2, 2], [1, 1], {'bin': None}),
    (MIX, BOTH, [1, 2, 2], [1, 1, 1], {'tote': 'object'}),
    (MIX, None, [1, 2, 2], [0], {2: None}),
]

REFUSED = [  # folder, categories, ids, what is said
    (MIX, None, [1, 1, 1], 'have objects, id 2 in mix-object-tote, got id 1'),
    (ZOOMED, None, [1, 1, 1], 'have objects, id 2 in zoomed-out'),
    (MIX, None, [1, 1, 2], r'one tote, id 1 in mix-object-tote, an image \(several in 1 of 2 images\)'),
    (MIX, None, [0, 1, 1], 'no id but 1, 2, the ids of mix-object-tote, got id 0'),
    (SAME, None, [1, 2, 1], 'no id but 1, the ids of same-object-transfer-set, got id 1 .*, id 2'),
    (SAME, None, [2, 2, 2], 'no id but 1, the ids of same-object-transfer-set, got id 2'),
    (MIX, None, [1, 2, 3], 'no id but 1, 2'),
    ('elsewhere', None, [1, 2, 2], 'lie in the folder of its subset'),
    ('elsewhere', [], [1, 1, 1], 'lie in the folder of its subset'),
    (MIX, [(1, 'Behälter'), (2, 'Ware')], [1, 2, 2], "named tote or object, got 'Behälter'"),
    (MIX, [(1, '托盘'), (2, 'object')], [1, 2, 2], "named tote or object, got '托盘'"),
    (SAME, [(1, 'item')], [1, 1, 1], "named tote or object, got 'item'"),
]


def opened(root: Path, folder: str, categories: list | None, ids: list[int], category_map: dict | None = None):
    document = coco_files.document()
    del document['categories']
    if categories is not None:
        document['categories'] = [{'id': i, 'name': name} for i, name in categories]
    for annotation, category_id in zip(document['annotations'], ids, strict=True):
        annotation['category_id'] = category_id
    file = coco_files.write_split(root, document, folder)
    prefix = {'img': str(file.parent / 'images')}
    return ArmbenchDataset(ann_file=str(file), data_prefix=prefix, category_map=category_map, data_root=root)


@pytest.mark.parametrize('case', LABELS, ids=str)
def test_labels(case: tuple, tmp_path: Path) -> None:
    folder, categories, ids, labels, *category_map = case
    dataset = opened(tmp_path, folder, categories, ids, *category_map)
    assert [label for i in range(2) for label in dataset.get_cat_ids(i)] == labels


@pytest.mark.parametrize(('folder', 'categories', 'ids', 'said'), REFUSED)
def test_refusals_offer_a_map_for_each_reading(folder: str, categories, ids, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        opened(tmp_path, folder, categories, ids)
    texts = re.findall(r'category_map=(\{.*?\})', str(caught.value))
    maps = [parse_options([f'data.category_map={text}'])['data.category_map'] for text in texts]
    assert len(maps) == (2 if not categories and len(set(ids)) == 2 else 1)
    for category_map in maps:
        dataset = opened(tmp_path, folder, categories, ids, category_map)
        names = dict(categories or ())
        wanted = [category_map.get(i, category_map.get(names.get(i), names.get(i))) for i in ids]
        assert [('tote', 'object')[label] for i in range(2) for label in dataset.get_cat_ids(i)] == wanted
