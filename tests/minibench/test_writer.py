"""The folder: its shape, its reproducibility, and what happens to one that is unfinished, old or foreign."""

import hashlib
import json
import re
import signal
from pathlib import Path
from unittest import mock

import cv2
import pytest

from armbench_mmdet.errors import InputError
from armbench_mmdet.minibench import DEFAULT_COUNTS, SUBSETS, ensure_minibench, make_minibench, writer
from armbench_mmdet.minibench.scene import MIX, SAME_OBJECT
from armbench_mmdet.minibench.writer import MARKER, image_name, is_complete

COUNTS = {(MIX, 'train'): 5, (MIX, 'val'): 2, **{(name, 'test'): 3 for name in SUBSETS}}
FEW = {(MIX, 'train'): 2}
PINNED = dict(zip(SUBSETS, ('54547407f3234743', '549a83a9b1b60f37', 'c26aaba543b10d39'), strict=True))


def make(root: Path, counts: dict = COUNTS, workers: int = 1, seed: int = 0) -> dict[str, bytes]:
    """Make it small; returns all its files."""
    make_minibench(root, counts=counts, workers=workers, seed=seed, width_px=96, height_px=80)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make(tmp_path_factory.mktemp('minibench'))


def pictures(files: dict[str, bytes]) -> set[str]:
    return {name for name in files if name.endswith('.jpg')}


def test_the_folder_has_armbenchs_shape(made: dict[str, bytes], tmp_path: Path) -> None:
    for (subset, split), count in COUNTS.items():
        content = json.loads(made[f'{subset}/{split}.json'])
        assert [row['id'] for row in content['images']] == list(range(1, count + 1))
        assert [row['id'] for row in content['annotations']] == list(range(1, len(content['annotations']) + 1))
        names = ['Object'] if subset == SAME_OBJECT else ['Tote', 'Object']
        assert [(row['id'], row['name']) for row in content['categories']] == [*enumerate(names, 1)]
        assert {row['image_id'] for row in content['annotations']} == set(range(1, count + 1))
        for row in content['images']:
            assert re.fullmatch(r'[0-9A-Z]{10}\.jpg', row['file_name'])
            (tmp_path / 'image.jpg').write_bytes(made[f'{subset}/images/{row["file_name"]}'])
            assert cv2.imread(str(tmp_path / 'image.jpg')).shape == (row['height'], row['width'], 3)
    assert len(pictures(made)) == sum(COUNTS.values())


def test_only_the_seed_changes_anything(made: dict[str, bytes], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as in a training: workers end all the same
    assert make(tmp_path / 'same', workers=2) == made
    signal.signal(signal.SIGTERM, before)
    assert make(tmp_path / 'same') == made, 'the folder is made anew'
    few = make(tmp_path / 'few', FEW)
    assert [made[name] for name in pictures(few)] == [few[name] for name in pictures(few)]
    assert not pictures(make(tmp_path / 'other', FEW, seed=1)) & pictures(made)


def test_annotations_are_the_same_on_every_machine(made: dict[str, bytes]) -> None:
    """Pinned digests: if one changes, the generator changed, and ``VERSION`` must be raised with it."""
    digests = {name: hashlib.sha256(made[f'{name}/test.json']).hexdigest()[:16] for name in SUBSETS}
    assert (writer.VERSION, digests) == (2, PINNED)


def test_names_do_not_repeat() -> None:
    names = {image_name(seed, 0, split, index) for seed in (0, 7) for split in range(3) for index in range(2000)}
    assert len(names) == 2 * 3 * 2000


def test_bad_arguments_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_minibench(tmp_path / 'out', counts={(MIX, 'val'): -1}, width_px=63, height_px=2449, seed=-2)
    sides, numbers = 'width_px must be 64…2448, got 63; height_px must be 64…2448, got 2449', 'must be 0 or more, got -'
    assert str(caught.value) == f'{sides}; seed {numbers}2; the count of {MIX} val {numbers}1'
    assert not (tmp_path / 'out').exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'thesis.txt').write_text('words')
    for call in (make_minibench, ensure_minibench):
        with pytest.raises(InputError, match=r'thesis\.txt'):
            call(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


def test_an_interrupted_call_is_seen_and_made_anew(tmp_path: Path) -> None:
    faults = mock.patch('cv2.imwrite', side_effect=[*[True] * 6, KeyboardInterrupt])
    with faults, pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    assert (tmp_path / MARKER).is_file()
    assert not is_complete(tmp_path)
    assert not (tmp_path / MIX / 'val.json').exists()
    make(tmp_path)
    assert is_complete(tmp_path)


def test_ensure_makes_it_once_and_refuses_an_older_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict] = []
    monkeypatch.setattr(writer, 'make_minibench', lambda root, counts: calls.append(counts) or make(root, FEW))
    root = tmp_path / 'data' / 'minibench'
    for _ in range(2):
        ensure_minibench(root)
    assert calls == [DEFAULT_COUNTS]
    (root / MIX / 'train.json').unlink()
    ensure_minibench(root, train_images=7)
    assert calls[1:] == [{**DEFAULT_COUNTS, (MIX, 'train'): 7}]
    marker = json.loads((root / MARKER).read_text())
    (root / MARKER).write_text(json.dumps({**marker, 'version': 1}))
    with pytest.raises(InputError, match=rf'version 2, got 1 .*make_minibench\.py {root} --overwrite'):
        ensure_minibench(root)
    make(root, FEW)
    assert is_complete(root)


def test_the_tool_makes_a_data_set_and_refuses_to_replace_it(tmp_path: Path, tool) -> None:
    tiny = ('--train', 1, '--val', 1, '--test', 1, '--width', 64, '--height', 64, '--workers', 1)
    for more, expected in (((), 0), ((), 2), (('--overwrite',), 0)):
        status, _, err = tool('make_minibench.py', tmp_path / 'out', *tiny, *more)
        assert (status, '--overwrite' in err) == (expected, expected == 2)
        assert is_complete(tmp_path / 'out')
