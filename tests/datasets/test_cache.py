"""The index cache: how often a file is parsed, what lies in its folder, what several processes get."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import coco_files
import filelock
import numpy as np
import pytest

from armbench_mmdet.datasets import cache, index
from armbench_mmdet.datasets.cache import resolve_cache_dir
from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.errors import InputError

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


def raised(error: Exception) -> Any:
    """A function that raises."""

    def act(*_: Any, **__: Any) -> None:
        raise error

    return act


@pytest.mark.parametrize('fault', ['no folder', 'full disk'])
def test_without_a_usable_cache_the_index_lies_in_memory(tmp_path, ann_file, monkeypatch, fault):
    said = []
    monkeypatch.setattr(cache, 'print_log', lambda message, *_: said.append(message))
    folder = tmp_path / 'cache'
    if fault == 'no folder':
        folder.touch()
    else:
        on_save(monkeypatch, raised(OSError(28, 'No space left on device')))
    opened = open_index(ann_file, folder)
    assert opened.path is None
    assert 'ARMBENCH_CACHE' in said[0]
    assert pickle.loads(pickle.dumps(opened)).segmentation(1) == opened.segmentation(1)
    assert not leftovers(folder)


@pytest.mark.parametrize('error', [OSError(37, 'No locks available'), NotImplementedError('no flock')])
def test_where_there_are_no_locks_it_goes_on_without(tmp_path, ann_file, monkeypatch, error):
    monkeypatch.setattr(filelock.FileLock, 'acquire', raised(error))
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
