from __future__ import annotations

import copy
import json
import pickle

import coco_files
import numpy as np
import pytest
from _annotations import write_synthetic_annotations

from armbench_mmdet.datasets import coco_stream
from armbench_mmdet.datasets import index as geometry_build
from armbench_mmdet.datasets import index as index_module
from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.errors import InputError


def test_everything_in_the_file_is_in_the_index(tmp_path):
    document = coco_files.random_document(0)
    index = open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    images, row = document['images'], 0
    assert index.image_ids.tolist() == [i['id'] for i in images]
    assert list(index.file_names()) == [i['file_name'] for i in images]
    assert list(zip(index.widths.tolist(), index.heights.tolist(), strict=True)) == [
        (i['width'], i['height']) for i in images
    ]
    for image_row, image in enumerate(images):
        assert index.annotation_starts[image_row] == row
        for annotation in (a for a in document['annotations'] if a['image_id'] == image['id']):
            assert index.annotation_ids[row] == annotation['id']
            assert index.image_rows[row] == image_row
            assert index.category_ids[row] == annotation['category_id']
            assert index.boxes[row].tolist() == annotation['bbox']
            assert index.areas[row] == annotation['area']
            assert index.crowds[row] == annotation['iscrowd']
            assert index.ignores[row] == annotation['ignore']
            assert index.segmentation(row) == annotation['segmentation']
            if not annotation['iscrowd']:
                points = np.concatenate(annotation['segmentation']).reshape(-1, 2)
                assert index.extents[row].tolist() == [*points.min(0), *points.max(0)]
                assert [ring.ravel().tolist() for ring in index.rings(row)] == annotation['segmentation']
            row += 1
    assert row == index.num_annotations


@pytest.mark.parametrize('block_bytes', [64, 150, 1000])
@pytest.mark.parametrize(
    ('render', 'cannot_be_cut'),
    [
        pytest.param(lambda d: json.dumps(d), False, id='plain'),
        pytest.param(lambda d: json.dumps(d, indent=1), False, id='indented'),
        pytest.param(lambda d: json.dumps(d, separators=(',', ':')), False, id='compact'),
        pytest.param(
            lambda d: json.dumps({k: d[k] for k in ('annotations', 'images', 'categories')}), False, id='images last'
        ),
        pytest.param(lambda d: '\ufeff' + json.dumps(d), False, id='byte-order mark'),
        pytest.param(lambda d: json.dumps({'info': '"annotations": [{"id": 1}, {'} | d), False, id='quoted'),
        pytest.param(lambda d: json.dumps({'info': {'annotations': [{'id': 1}]}} | d), True, id='decoy'),
        pytest.param(
            lambda d: json.dumps(d | {'annotations': [a | {'x': [{'a': 1}, {'b': '}, {'}]} for a in d['annotations']]}),
            True,
            id='nested',
        ),
    ],
)
def test_blocks_of_any_size_give_the_same_columns(tmp_path, monkeypatch, render, cannot_be_cut, block_bytes):
    document = coco_files.random_document(3)
    expected = open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    whole = []
    parse = index_module.parse_coco
    monkeypatch.setattr(index_module, 'parse_coco', lambda data: (whole.append(data), parse(data))[1])
    monkeypatch.setattr(coco_stream, '_BLOCK_BYTES', block_bytes)
    monkeypatch.setattr(geometry_build, '_BLOCK_NUMBERS', block_bytes // 8)
    path = coco_files.write_json(tmp_path / 'b.json', render(document).encode())
    index = open_index(path, tmp_path / 'cache')
    for name in index_module.ColumnIndex.__annotations__:
        np.testing.assert_array_equal(getattr(index, name), getattr(expected, name), name)
    assert index.categories == expected.categories
    assert bool(whole) == cannot_be_cut


def test_a_well_formed_file_is_never_held_in_memory_as_a_whole(tmp_path, monkeypatch):
    def refuse(data: bytes) -> None:
        raise AssertionError('parsed as a whole')

    monkeypatch.setattr(index_module, 'parse_coco', refuse)
    write_synthetic_annotations(tmp_path / 'a.json', 5, 40)
    assert open_index(tmp_path / 'a.json', tmp_path / 'cache').num_annotations == 40


def test_missing_boxes_and_areas_are_those_of_the_masks(tmp_path):
    document = coco_files.document()
    size = [coco_files.HEIGHT, coco_files.WIDTH]
    runs = [2 * coco_files.HEIGHT + 3, 10, coco_files.HEIGHT - 10, 10]  # two columns of ten pixels
    counts = [*runs, coco_files.HEIGHT * coco_files.WIDTH - sum(runs)]
    document['annotations'][1]['segmentation'] = {'size': size, 'counts': counts}
    for annotation in document['annotations']:
        del annotation['bbox'], annotation['area']
    index = open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    assert not index.box_given.any()
    assert not index.area_given.any()
    assert index.boxes.tolist() == [[4, 4, 50, 40], [2, 3, 2, 10], [5, 5, 10, 10]]
    assert index.extents.tolist() == [[4, 4, 54, 44], [2, 3, 4, 13], [5, 5, 15, 15]]
    assert index.areas.tolist() == [2000, 20, 100]


def test_pickles_and_copies_share_the_mapped_file(tmp_path):
    index = open_index(coco_files.write_json(tmp_path / 'a.json', coco_files.document()), tmp_path / 'cache')
    pickled = pickle.dumps(index)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).segmentation(1) == index.segmentation(1)
    assert copy.deepcopy(index) is index


def test_a_broken_file_leaves_nothing_in_the_cache(tmp_path):
    document = coco_files.document()
    document['annotations'][1]['image_id'] = 99
    with pytest.raises(InputError, match=r'annotation 2: no image has id 99'):
        open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    assert not list((tmp_path / 'cache').rglob('*.columns'))
    assert not list((tmp_path / 'cache').rglob('*.partial'))


def test_an_error_shows_ten_problems_and_counts_the_rest(tmp_path):
    document = coco_files.document()
    document['annotations'] = [{**document['annotations'][0], 'image_id': 99, 'id': i} for i in range(25)]
    with pytest.raises(InputError, match=r'got 25 problem\(s\)(.|\n)*and 15 more'):
        open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')


@pytest.mark.parametrize(
    ('text', 'where'),
    [
        (b'{\n  "images": [],\n  "annotations": [}\n', 'line 3, column 19'),
        (b'{"images": [],\n', 'line 2, column 1'),
        (b'', 'line 1, column 1'),
        (b'{"images": [\n{"id": NaN}]}', 'line 2, column 8'),
    ],
)
def test_malformed_json_is_reported_with_line_and_column(tmp_path, text, where):
    with pytest.raises(InputError, match=where):
        open_index(coco_files.write_json(tmp_path / 'a.json', text), tmp_path / 'cache')
