import copy
import dataclasses
import gzip
import json
import pickle

import coco_files
import numpy as np
import pytest

from armbench_mmdet.datasets.index import ColumnIndex, open_index

WRITTEN = {
    'images last': lambda document: json.dumps(dict(reversed(document.items()))).encode(),
    'byte-order mark': lambda document: json.dumps(document).encode('utf-8-sig'),
    'UTF-16': lambda document: json.dumps(document).encode('utf-16'),
    'gzip': lambda document: gzip.compress(json.dumps(document).encode()),
}


@pytest.mark.parametrize('way', WRITTEN)
def test_the_way_a_file_is_written_does_not_matter(tmp_path, way):
    document = coco_files.random_document(3)
    expected = open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    index = open_index(coco_files.write_json(tmp_path / 'b.json', WRITTEN[way](document)), tmp_path / 'cache')
    for field in dataclasses.fields(ColumnIndex)[3:]:
        np.testing.assert_array_equal(getattr(index, field.name), getattr(expected, field.name), field.name)
    assert index.categories == expected.categories


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
