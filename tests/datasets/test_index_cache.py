from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import coco_files
import pytest
from _annotations import write_synthetic_annotations

from armbench_mmdet.datasets import cache as index_cache
from armbench_mmdet.datasets import index as index_module
from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.errors import InputError

PROCESSES = multiprocessing.get_context('fork')


@pytest.fixture
def ann_file(tmp_path: Path) -> Path:
    return coco_files.write_json(tmp_path / 'train.json', coco_files.document())


@pytest.fixture
def builds(monkeypatch) -> list[Path]:
    """Files that were parsed."""
    parsed: list[Path] = []
    write = index_module.write_index
    monkeypatch.setattr(index_module, 'write_index', lambda path, file: (parsed.append(path), write(path, file))[1])
    return parsed


@pytest.fixture
def hashes(monkeypatch) -> list[Path]:
    """Files that were read to compute their key."""
    read: list[Path] = []
    key = index_cache._content_key
    monkeypatch.setattr(index_cache, '_content_key', lambda path: (read.append(path), key(path))[1])
    return read


def test_a_file_is_parsed_once(tmp_path, ann_file, builds, hashes, monkeypatch):
    monkeypatch.setattr(index_cache, '_RACY_S', -1)
    for _ in range(3):
        assert open_index(ann_file, tmp_path / 'cache').num_annotations == 3
    assert (len(builds), len(hashes)) == (1, 1)


def test_a_young_file_is_not_trusted_by_its_times(tmp_path, ann_file, builds, hashes):
    for _ in range(3):
        open_index(ann_file, tmp_path / 'cache')
    assert (len(builds), len(hashes)) == (1, 3)


def test_content_decides_not_name_or_times(tmp_path, ann_file, builds):
    open_index(ann_file, tmp_path / 'cache')
    os.utime(ann_file, (0, 0))
    open_index(ann_file, tmp_path / 'cache')
    open_index(shutil.copy(ann_file, tmp_path / 'copy.json'), tmp_path / 'cache')
    assert len(builds) == 1
    size = ann_file.stat().st_size
    ann_file.write_bytes(ann_file.read_bytes().replace(b'"A.jpg"', b'"Z.jpg"'))
    assert ann_file.stat().st_size == size
    assert open_index(ann_file, tmp_path / 'cache').file_name(0) == 'Z.jpg'


@pytest.mark.parametrize('damage', [lambda c: c[: len(c) // 2], lambda c: b'', lambda c: b'x' * len(c)])
def test_a_damaged_cache_is_built_again(tmp_path, ann_file, builds, damage):
    path = open_index(ann_file, tmp_path / 'cache').path
    path.write_bytes(damage(path.read_bytes()))
    assert open_index(ann_file, tmp_path / 'cache').num_annotations == 3
    assert len(builds) == 2


@pytest.mark.parametrize('memo', [b'', b'[]', b'{"key": "../../x", "stamp": []}', b'{}'])
def test_a_damaged_memo_is_ignored(tmp_path, ann_file, builds, monkeypatch, memo):
    monkeypatch.setattr(index_cache, '_RACY_S', -1)
    open_index(ann_file, tmp_path / 'cache')
    (path,) = (tmp_path / 'cache').rglob('*.memo.json')
    path.write_bytes(memo)
    assert open_index(ann_file, tmp_path / 'cache').num_annotations == 3
    assert len(builds) == 1


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'named'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert index_cache.resolve_cache_dir(tmp_path / 'given') == tmp_path / 'given'
    assert index_cache.resolve_cache_dir() == tmp_path / 'named'
    monkeypatch.delenv('ARMBENCH_CACHE')
    assert index_cache.resolve_cache_dir() == tmp_path / 'xdg' / 'armbench_mmdet'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert index_cache.resolve_cache_dir() == tmp_path / 'home' / '.cache' / 'armbench_mmdet'


def test_without_a_usable_cache_folder_a_temporary_one_is_used(tmp_path, ann_file, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setattr(tempfile, 'gettempdir', lambda: str(tmp_path / 'temporary'))
    index = open_index(ann_file, tmp_path / 'file' / 'cache')
    assert index.path.is_relative_to(tmp_path / 'temporary')
    monkeypatch.setattr(tempfile, 'gettempdir', lambda: str(tmp_path / 'file'))
    with pytest.raises(InputError, match='ARMBENCH_CACHE'):
        open_index(ann_file, tmp_path / 'file' / 'cache')


def test_a_full_disk_is_one_clear_message(tmp_path, ann_file, monkeypatch):
    def fill(path, file):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(index_module, 'write_index', fill)
    with pytest.raises(InputError, match=r'No space left on device.*ARMBENCH_CACHE'):
        open_index(ann_file, tmp_path / 'cache')
    assert not list((tmp_path / 'cache').rglob('*.partial'))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, ann_file, monkeypatch):
    write = index_module.write_index

    def change(path, file):
        problems = write(path, file)
        path.write_bytes(path.read_bytes() + b' ')
        return problems

    monkeypatch.setattr(index_module, 'write_index', change)
    with pytest.raises(InputError, match='must not change'):
        open_index(ann_file, tmp_path / 'cache')


@pytest.mark.parametrize('what', ['nothing', 'a folder'])
def test_a_missing_file_is_named(tmp_path, what):
    path = tmp_path / 'train.json'
    if what == 'a folder':
        path.mkdir()
    with pytest.raises(InputError, match=r'annotation file must.*train\.json'):
        open_index(path, tmp_path / 'cache')


def _open_and_report(ann_file, cache_dir, results, counter):
    write = index_module.write_index

    def count(path, file):
        with counter.get_lock():
            counter.value += 1
        return write(path, file)

    index_module.write_index = count
    index = open_index(ann_file, cache_dir)
    results.put((index.num_annotations, float(index.coordinates.sum())))


def _die_while_building(ann_file, cache_dir, is_building):
    def stall(path, file):
        file.write(b'half an index')
        file.flush()
        is_building.set()
        time.sleep(60)

    index_module.write_index = stall
    open_index(ann_file, cache_dir)


def test_eight_processes_and_one_that_dies_while_building(tmp_path):
    ann_file = coco_files.write_json(tmp_path / 'train.json', coco_files.random_document(0, images=200))
    expected = open_index(ann_file, tmp_path / 'other cache')
    is_building, results, counter = PROCESSES.Event(), PROCESSES.Queue(), PROCESSES.Value('i', 0)
    victim = PROCESSES.Process(target=_die_while_building, args=(ann_file, tmp_path / 'cache', is_building))
    victim.start()
    assert is_building.wait(30)
    arguments = (ann_file, tmp_path / 'cache', results, counter)
    others = [PROCESSES.Process(target=_open_and_report, args=arguments) for _ in range(8)]
    for process in others:
        process.start()
    time.sleep(0.3)
    assert counter.value == 0, 'somebody built without waiting'
    os.kill(victim.pid, signal.SIGKILL)
    found = [results.get(timeout=30) for _ in others]
    for process in (victim, *others):
        process.join()
    assert found == [(expected.num_annotations, float(expected.coordinates.sum()))] * 8
    assert counter.value == 1
    assert not list((tmp_path / 'cache').rglob('*.partial'))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_eight_processes_and_one_that_dies_at_any_time(tmp_path, seed):
    ann_file = tmp_path / 'train.json'
    write_synthetic_annotations(ann_file, 500, 5000, seed)
    expected = open_index(ann_file, tmp_path / 'other cache')
    results, counter = PROCESSES.Queue(), PROCESSES.Value('i', 0)
    arguments = (ann_file, tmp_path / 'cache', results, counter)
    others = [PROCESSES.Process(target=_open_and_report, args=arguments) for _ in range(7)]
    # The victim has a queue of its own: a process killed while it holds a queue's lock would block the others.
    victim = PROCESSES.Process(target=_open_and_report, args=(*arguments[:2], PROCESSES.Queue(), PROCESSES.Value('i')))
    for process in (victim, *others):
        process.start()
    time.sleep(random.Random(seed).uniform(0, 0.2))
    victim.kill()
    found = [results.get(timeout=60) for _ in others]
    for process in (victim, *others):
        process.join()
    assert found == [(expected.num_annotations, float(expected.coordinates.sum()))] * 7
