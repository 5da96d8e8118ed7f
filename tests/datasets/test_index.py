"""The index of a COCO file: its columns, however the file is written."""

import copy
import dataclasses
import gzip
import json
import pickle
import random

import coco_files
import numpy as np
import pytest

from armbench_mmdet.datasets.index import ColumnIndex, open_index

WRITTEN = {
    'images last': lambda document: json.dumps(dict(reversed(document.items()))).encode(),
    'byte-order mark': lambda document: json.dumps(document).encode('utf-8-sig'),
    'UTF-16': lambda document: json.dumps(document).encode('utf-16'),
    'gzip': lambda document: gzip.compress(json.dumps(document, indent=2).encode()),
}


@pytest.mark.parametrize('way', WRITTEN)
def test_the_way_a_file_is_written_does_not_matter(tmp_path, way):
    document = coco_files.random_document(3)
    expected = open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    index = open_index(coco_files.write_json(tmp_path / 'b.json', WRITTEN[way](document)), tmp_path / 'cache')
    for field in dataclasses.fields(ColumnIndex)[3:]:
        np.testing.assert_array_equal(getattr(index, field.name), getattr(expected, field.name), field.name)
    assert index.categories == expected.categories


NUMBERS = ['7', '0', '-3', '-0.0', '12.50', '0.1', '9007199254740993e-15', '1.5e1', '2E-1', '10.123456789012345678901']
NUMBERS += ['63.99999999999999', '5.000000000000000000000000001', '9.007199254740993', ' 4', '8\n', '\t6 ']


def test_polygons_are_what_a_json_parser_reads(tmp_path):
    rng = random.Random(0)
    document = coco_files.document()
    rle = {'size': [coco_files.HEIGHT, coco_files.WIDTH], 'counts': [0, coco_files.HEIGHT * coco_files.WIDTH]}

    def polygon() -> str:
        return f'[{",".join(rng.choices(NUMBERS, k=2 * rng.randint(3, 9)))}]'

    polygons = [f'[{" , ".join(polygon() for _ in range(rng.randint(1, 3)))}]' for _ in range(1500)]
    masks = [rng.choice(['null', '[ ]', json.dumps(rle)]) if rng.random() < 0.05 else one for one in polygons]
    tote = document['annotations'][0]
    document['annotations'] = [{**tote, 'id': i, 'segmentation': f'@{i}@'} for i in range(len(masks))]
    text = json.dumps(document)
    for i, mask in enumerate(masks):
        text = text.replace(f'"@{i}@"', mask)
    index = open_index(coco_files.write_json(tmp_path / 'a.json', text.encode()), tmp_path / 'cache')
    for row, mask in enumerate(json.loads(mask) for mask in masks):
        found = index.segmentation(row)
        assert (
            (index.mask_area(row) == coco_files.HEIGHT * coco_files.WIDTH) if mask == rle else found == (mask or None)
        )


def test_missing_boxes_and_areas_are_those_of_the_masks(tmp_path):
    document = coco_files.document()
    size = [coco_files.HEIGHT, coco_files.WIDTH]
    runs = [2 * coco_files.HEIGHT + 3, 10, coco_files.HEIGHT - 10, 10]  # two columns of ten pixels
    counts = [*runs, coco_files.HEIGHT * coco_files.WIDTH - sum(runs)]
    document['annotations'][1]['segmentation'] = {'size': size, 'counts': counts}
    for annotation in document['annotations']:
        del annotation['bbox'], annotation['area']
    index = open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    assert not (index.box_given | index.area_given).any()
    assert index.boxes.tolist() == [[4, 4, 50, 40], [2, 3, 2, 10], [5, 5, 10, 10]]
    assert index.extents.tolist() == [[4, 4, 54, 44], [2, 3, 4, 13], [5, 5, 15, 15]]
    assert index.areas.tolist() == [2000, 20, 100]


def test_pickles_and_copies_share_the_mapped_file(tmp_path):
    index = open_index(coco_files.write_json(tmp_path / 'a.json', coco_files.document()), tmp_path / 'cache')
    pickled = pickle.dumps(index)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).segmentation(1) == index.segmentation(1)
    assert copy.deepcopy(index) is index
    with pytest.raises(ValueError, match='read-only'):
        index.boxes[0] = 1
