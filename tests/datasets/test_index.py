"""The index of a COCO file: its columns, however the file is written, and their cache, whoever builds it."""

import copy
import dataclasses
import gzip
import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import coco_files
import filelock
import numpy as np
import pytest

from armbench_mmdet.datasets import cache, index
from armbench_mmdet.datasets.cache import resolve_cache_dir
from armbench_mmdet.datasets.index import ColumnIndex, open_index
from armbench_mmdet.errors import InputError

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


def test_numbers_are_what_a_json_parser_reads(tmp_path):
    document = coco_files.document()
    for annotation, mask in zip(document['annotations'], (None, '@', []), strict=True):
        annotation['segmentation'] = mask
    polygon = f'[{" , ".join(NUMBERS)}]'
    text = json.dumps(document).replace('"@"', f'[{polygon},{polygon}]')
    index = open_index(coco_files.write_json(tmp_path / 'a.json', text.encode()), tmp_path / 'cache')
    assert [index.segmentation(row) for row in range(3)] == [None, [json.loads(polygon)] * 2, None]


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


def test_pickles_and_copies_share_the_mapped_file(tmp_path, ann_file):
    index = open_index(ann_file, tmp_path / 'cache')
    pickled = pickle.dumps(index)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).segmentation(1) == index.segmentation(1)
    assert copy.deepcopy(index) is index
    with pytest.raises(ValueError, match='read-only'):
        index.boxes[0] = 1


PROCESSES = multiprocessing.get_context('fork')


@pytest.fixture
def ann_file(tmp_path: Path) -> Path:
    return coco_files.write_json(tmp_path / 'train.json', coco_files.document())


@pytest.fixture
def builds(monkeypatch):
    """The number of times that an annotation file was parsed, by whatever process."""
    number, parse = PROCESSES.Value('i', 0), index.read_sound_records

    def counted(path: Path) -> Any:
        with number.get_lock():
            number.value += 1
        return parse(path)

    monkeypatch.setattr(index, 'read_sound_records', counted)
    return number


def on_save(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Do something before the coordinates are written."""
    save = np.save
    monkeypatch.setattr(np, 'save', lambda path, *rest: (path.name == 'coordinates.npy' and act(), save(path, *rest)))


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob('*') if path.suffix in ('.npy', '.draft')]


def test_a_file_is_parsed_once_until_it_changes(tmp_path, ann_file, builds):
    for _ in range(3):
        assert open_index(ann_file, tmp_path / 'cache').file_name(0) == 'A.jpg'
    assert builds.value == 1
    before = ann_file.stat()
    ann_file.write_bytes(ann_file.read_bytes().replace(b'"A.jpg"', b'"Z.jpg"'))
    os.utime(ann_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ann_file.stat().st_size == before.st_size
    assert open_index(ann_file, tmp_path / 'cache').file_name(0) == 'Z.jpg'


@pytest.mark.parametrize('name', ['meta.json', 'boxes.npy', 'rle_bytes.npy'])
@pytest.mark.parametrize(
    'damage',
    [lambda c: c[:-1], lambda c: c[: len(c) // 2], lambda c: b'', lambda c: b'x' * len(c), None],
    ids=['cut by a byte', 'half', 'empty', 'scribbled over', 'gone'],
)
def test_a_damaged_cache_is_built_again(tmp_path, ann_file, name, damage):
    file = open_index(ann_file, tmp_path / 'cache').path / name
    content = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage(content))
    assert open_index(ann_file, tmp_path / 'cache').segmentation(1) == [[10.5, 10, 30.5, 10, 30.5, 20, 10.5, 20]]
    assert file.read_bytes() == content


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'named'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert resolve_cache_dir(tmp_path / 'given') == tmp_path / 'given'
    assert resolve_cache_dir() == tmp_path / 'named'
    monkeypatch.delenv('ARMBENCH_CACHE')
    assert resolve_cache_dir() == tmp_path / 'xdg' / 'armbench_mmdet'


@pytest.mark.parametrize('fault', ['no folder', 'full disk'])
def test_without_a_usable_cache_the_index_lies_in_memory(tmp_path, ann_file, monkeypatch, fault):
    said = []
    monkeypatch.setattr(cache, 'print_log', lambda message, *_: said.append(message))
    folder = tmp_path / 'cache'
    if fault == 'no folder':
        folder.touch()
    else:
        on_save(monkeypatch, Mock(side_effect=OSError(28, 'No space left on device')))
    opened = open_index(ann_file, folder)
    assert opened.path is None
    assert 'ARMBENCH_CACHE' in said[0]
    assert pickle.loads(pickle.dumps(opened)).segmentation(1) == opened.segmentation(1)
    assert not leftovers(folder)


@pytest.mark.parametrize('error', [OSError(37, 'No locks available'), NotImplementedError('no flock')])
def test_where_there_are_no_locks_it_goes_on_without(tmp_path, ann_file, monkeypatch, error):
    monkeypatch.setattr(filelock.FileLock, 'acquire', Mock(side_effect=error))
    assert open_index(ann_file, tmp_path / 'cache').path is not None


def test_missing_broken_and_changing_files_are_refused(tmp_path, ann_file, monkeypatch):
    for path in (tmp_path / 'val.json', tmp_path):
        with pytest.raises(InputError, match=rf'annotation file must be an existing file, got .*{path.name}'):
            open_index(path, tmp_path / 'cache')
    document = coco_files.document()
    document['annotations'] = [{**document['annotations'][0], 'image_id': 99, 'id': i} for i in range(25)]
    with pytest.raises(InputError, match=r'got 25 problem\(s\)(.|\n)*annotation 0: no image has id 99(.|\n)*15 more'):
        open_index(coco_files.write_json(tmp_path / 'a.json', document), tmp_path / 'cache')
    assert not leftovers(tmp_path / 'cache')
    on_save(monkeypatch, lambda: os.truncate(ann_file, 10))
    with pytest.raises(InputError, match='must not change'):
        open_index(ann_file, tmp_path / 'cache')


def test_eight_processes_and_one_that_dies_while_building(tmp_path, monkeypatch, builds):
    ann_file = coco_files.write_json(tmp_path / 'train.json', coco_files.random_document(0, images=200))
    expected = open_index(ann_file, tmp_path / 'other cache').coordinates.sum()
    is_building, results = PROCESSES.Event(), PROCESSES.Queue()
    with monkeypatch.context() as patched:
        on_save(patched, lambda: (is_building.set(), time.sleep(60)))
        victim = PROCESSES.Process(target=open_index, args=(ann_file, tmp_path / 'cache'))
        victim.start()
    assert is_building.wait(30)
    others = [
        PROCESSES.Process(target=lambda: results.put(open_index(ann_file, tmp_path / 'cache').coordinates.sum()))
        for _ in range(8)
    ]
    for process in others:
        process.start()
    time.sleep(0.3)
    assert builds.value == 2, 'somebody built without waiting'
    os.kill(victim.pid, signal.SIGKILL)
    found = [results.get(timeout=30) for _ in others]
    for process in (victim, *others):
        process.join()
    assert found == [expected] * 8
    assert builds.value == 3
    assert not list((tmp_path / 'cache').rglob('*.draft'))
