"""The index cache, from outside: which files are opened, what lies in its folder, what several processes get."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import coco_files
import filelock
import pytest

from armbench_mmdet.datasets import cache
from armbench_mmdet.datasets.cache import resolve_cache_dir
from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.errors import InputError

PROCESSES = multiprocessing.get_context('fork')

_watchers: list[Callable[[str, str], None]] = []


def _watch(event: str, arguments: tuple) -> None:
    if event in ('open', 'os.mkdir') and isinstance(arguments[0], str | os.PathLike):
        for watcher in _watchers:
            watcher(event, os.fspath(arguments[0]))


sys.addaudithook(_watch)


@contextlib.contextmanager
def watching(watcher: Callable[[str, str], None]) -> Iterator[None]:
    """Call a function at each opening of a file and making of a folder."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@pytest.fixture
def ann_file(tmp_path: Path) -> Path:
    return coco_files.write_json(tmp_path / 'train.json', coco_files.document())


@pytest.fixture
def reads(ann_file: Path):
    """One entry for each time that the annotation file was opened."""
    found: list[str] = []
    with watching(lambda event, path: found.append(path) if path == str(ann_file) else None):
        yield found


def test_a_file_is_read_once(tmp_path, ann_file, reads):
    for _ in range(3):
        assert open_index(ann_file, tmp_path / 'cache').num_annotations == 3
    assert len(reads) == 1


def test_a_change_that_leaves_size_and_time_is_noticed(tmp_path, ann_file):
    before = ann_file.stat()
    open_index(ann_file, tmp_path / 'cache')
    ann_file.write_bytes(ann_file.read_bytes().replace(b'"A.jpg"', b'"Z.jpg"'))
    os.utime(ann_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ann_file.stat().st_size == before.st_size
    assert open_index(ann_file, tmp_path / 'cache').file_name(0) == 'Z.jpg'


@pytest.mark.parametrize('name', ['meta.json', 'boxes.npy', 'coordinates.npy', 'rle_bytes.npy'])
@pytest.mark.parametrize(
    'damage',
    [lambda c: c[:-1], lambda c: c[: len(c) // 2], lambda c: b'', lambda c: b'x' * len(c), None],
    ids=['cut by a byte', 'half', 'empty', 'scribbled over', 'gone'],
)
def test_a_damaged_cache_is_built_again(tmp_path, ann_file, name, damage):
    file = open_index(ann_file, tmp_path / 'cache').path / name
    content = file.read_bytes()
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(content))
    assert open_index(ann_file, tmp_path / 'cache').segmentation(1) == [[10.5, 10, 30.5, 10, 30.5, 20, 10.5, 20]]
    assert file.read_bytes() == content


def test_columns_cannot_be_changed(tmp_path, ann_file):
    with pytest.raises(ValueError, match='read-only'):
        open_index(ann_file, tmp_path / 'cache').boxes[0] = 1


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'named'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert resolve_cache_dir(tmp_path / 'given') == tmp_path / 'given'
    assert resolve_cache_dir() == tmp_path / 'named'
    monkeypatch.delenv('ARMBENCH_CACHE')
    assert resolve_cache_dir() == tmp_path / 'xdg' / 'armbench_mmdet'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert resolve_cache_dir() == tmp_path / 'home' / '.cache' / 'armbench_mmdet'


@pytest.mark.parametrize('fault', ['no folder', 'full disk'])
def test_without_a_usable_cache_the_index_lies_in_memory(tmp_path, ann_file, monkeypatch, fault):
    def fill(event: str, path: str) -> None:
        if fault == 'full disk' and path.endswith('coordinates.npy'):
            raise OSError(28, 'No space left on device')

    said = []
    monkeypatch.setattr(cache, 'print_log', lambda message, *_: said.append(message))
    folder = tmp_path / 'cache'
    if fault == 'no folder':
        folder.touch()
    with watching(fill):
        index = open_index(ann_file, folder)
    assert index.path is None
    assert 'ARMBENCH_CACHE' in said[0]
    assert pickle.loads(pickle.dumps(index)).segmentation(1) == index.segmentation(1)
    assert not [path for path in folder.rglob('*') if path.suffix in ('.npy', '.draft')]


@pytest.mark.parametrize('error', [OSError(37, 'No locks available'), NotImplementedError('no flock')])
def test_where_there_are_no_locks_it_goes_on_without(tmp_path, ann_file, monkeypatch, error):
    def refuse(lock, *args, **options):
        raise error

    monkeypatch.setattr(filelock.FileLock, 'acquire', refuse)
    assert open_index(ann_file, tmp_path / 'cache').num_annotations == 3


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, ann_file):
    def change(event: str, path: str) -> None:
        if path.endswith('image_ids.npy'):
            os.truncate(ann_file, 10)

    with watching(change), pytest.raises(InputError, match='must not change'):
        open_index(ann_file, tmp_path / 'cache')


@pytest.mark.parametrize('what', ['nothing', 'a folder'])
def test_a_missing_file_is_named(tmp_path, what):
    path = tmp_path / 'train.json'
    if what == 'a folder':
        path.mkdir()
    with pytest.raises(InputError, match=r'annotation file must.*train\.json'):
        open_index(path, tmp_path / 'cache')


def _open_and_report(ann_file, cache_dir, results, builds):
    def count(event: str, path: str) -> None:
        if event == 'os.mkdir' and path.endswith('.draft'):
            with builds.get_lock():
                builds.value += 1

    with watching(count):
        index = open_index(ann_file, cache_dir)
    results.put((index.num_annotations, float(index.coordinates.sum())))


def _stall_while_building(ann_file, cache_dir, is_building):
    def stall(event: str, path: str) -> None:
        if path.endswith('coordinates.npy'):
            is_building.set()
            time.sleep(60)

    with watching(stall):
        open_index(ann_file, cache_dir)


def test_eight_processes_and_one_that_dies_while_building(tmp_path):
    ann_file = coco_files.write_json(tmp_path / 'train.json', coco_files.random_document(0, images=200))
    expected = open_index(ann_file, tmp_path / 'other cache')
    is_building, results, builds = PROCESSES.Event(), PROCESSES.Queue(), PROCESSES.Value('i', 0)
    victim = PROCESSES.Process(target=_stall_while_building, args=(ann_file, tmp_path / 'cache', is_building))
    victim.start()
    assert is_building.wait(30)
    arguments = (ann_file, tmp_path / 'cache', results, builds)
    others = [PROCESSES.Process(target=_open_and_report, args=arguments) for _ in range(8)]
    for process in others:
        process.start()
    time.sleep(0.3)
    assert builds.value == 0, 'somebody built without waiting'
    os.kill(victim.pid, signal.SIGKILL)
    found = [results.get(timeout=30) for _ in others]
    for process in (victim, *others):
        process.join()
    assert found == [(expected.num_annotations, float(expected.coordinates.sum()))] * 8
    assert builds.value == 1
    assert not list((tmp_path / 'cache').rglob('*.draft'))
