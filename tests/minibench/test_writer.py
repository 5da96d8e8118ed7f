import hashlib
import json
import re
import signal
from pathlib import Path

import cv2
import pytest

from armbench_mmdet.errors import InputError
from armbench_mmdet.minibench import DEFAULT_COUNTS, SUBSETS, ensure_minibench, make_minibench, writer
from armbench_mmdet.minibench.scene import SAME_OBJECT
from armbench_mmdet.minibench.writer import MARKER, image_name, is_complete

COUNTS = {(SUBSETS[0], 'train'): 5, (SUBSETS[0], 'val'): 2, **{(name, 'test'): 3 for name in SUBSETS}}
PINNED = dict(zip(SUBSETS, ('54547407f3234743', '549a83a9b1b60f37', 'c26aaba543b10d39'), strict=True))
SMALL = {'width_px': 96, 'height_px': 80, 'show_progress': False}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('minibench')
    make_minibench(root, counts=COUNTS, workers=1, **SMALL)
    return root


def test_the_folder_has_armbenchs_shape(made: Path) -> None:
    for (subset, split), count in COUNTS.items():
        content = json.loads((made / subset / f'{split}.json').read_text())
        assert [row['id'] for row in content['images']] == list(range(1, count + 1))
        assert [row['id'] for row in content['annotations']] == list(range(1, len(content['annotations']) + 1))
        names = ['Object'] if subset == SAME_OBJECT else ['Tote', 'Object']
        assert [(row['id'], row['name']) for row in content['categories']] == [*enumerate(names, 1)]
        assert {row['image_id'] for row in content['annotations']} == set(range(1, count + 1))
        for row in content['images']:
            assert re.fullmatch(r'[0-9A-Z]{10}\.jpg', row['file_name'])
            image = cv2.imread(str(made / subset / 'images' / row['file_name']))
            assert image.shape == (row['height'], row['width'], 3)
    listed = {name for name in contents(made) if name.endswith('.jpg')}
    assert len(listed) == sum(COUNTS.values())


def test_worker_count_and_repetition_change_nothing(made: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as in a training: workers end all the same
    make_minibench(tmp_path, counts=COUNTS, workers=2, **SMALL)
    signal.signal(signal.SIGTERM, before)
    assert contents(tmp_path) == contents(made)
    make_minibench(tmp_path, counts=COUNTS, workers=1, **SMALL)
    assert contents(tmp_path) == contents(made)


def test_a_picture_does_not_depend_on_how_many_there_are(made: Path, tmp_path: Path) -> None:
    make_minibench(tmp_path, counts={(SUBSETS[0], 'train'): 2}, workers=1, **SMALL)
    few, many = contents(tmp_path), contents(made)
    pictures = [name for name in few if name.endswith('.jpg')]
    assert len(pictures) == 2
    assert all(few[name] == many[name] for name in pictures)


def test_the_seed_changes_everything(made: Path, tmp_path: Path) -> None:
    make_minibench(tmp_path, counts={(SUBSETS[0], 'train'): 2}, seed=1, workers=1, **SMALL)
    assert not {name for name in contents(tmp_path) if name.endswith('.jpg')} & set(contents(made))


def test_names_do_not_repeat() -> None:
    names = {image_name(seed, 0, split, index) for seed in (0, 7) for split in range(3) for index in range(2000)}
    assert len(names) == 2 * 3 * 2000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'width_px': 63}, 'width_px must be 64…2448, got 63'),
        ({'height_px': 2449}, 'height_px must be 64…2448, got 2449'),
        ({'seed': -1}, 'seed must be 0 or more'),
        ({'counts': {(SUBSETS[0], 'train'): -1}}, 'must be 0 or more, got -1'),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make_minibench(tmp_path / 'out', **arguments)
    assert not (tmp_path / 'out').exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'thesis.txt').write_text('words')
    with pytest.raises(InputError, match=r'thesis\.txt'):
        make_minibench(tmp_path)
    with pytest.raises(InputError, match=r'thesis\.txt'):
        ensure_minibench(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


def test_an_interrupted_call_is_seen_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = writer.render_scene, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(writer, 'render_scene', failing)
    with pytest.raises(KeyboardInterrupt):
        make_minibench(tmp_path, counts=COUNTS, workers=1, **SMALL)
    assert (tmp_path / MARKER).is_file()
    assert not is_complete(tmp_path)
    assert not (tmp_path / SUBSETS[0] / 'val.json').exists()
    make_minibench(tmp_path, counts=COUNTS, workers=1, **SMALL)
    assert is_complete(tmp_path)


@pytest.fixture
def few_by_default(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict]]:
    """``make_minibench`` as ``ensure_minibench`` calls it, small; the list tells for which folders and counts."""
    calls: list[tuple[Path, dict]] = []

    def small(root: Path, counts: dict) -> None:
        calls.append((root, counts))
        make_minibench(root, counts={(SUBSETS[0], 'test'): 1}, workers=1, **SMALL)

    monkeypatch.setattr(writer, 'make_minibench', small)
    return calls


def test_ensure_makes_it_once(tmp_path: Path, few_by_default: list, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(writer, 'print_log', lambda text, *_: said.append(text))
    root = tmp_path / 'data' / 'minibench'
    ensure_minibench(root)
    ensure_minibench(root)
    assert [str(root) in line for line in said] == [True]
    assert few_by_default == [(root, DEFAULT_COUNTS)]
    (root / SUBSETS[0] / 'test.json').unlink()
    ensure_minibench(root, train_images=7)
    assert few_by_default[1:] == [(root, {**DEFAULT_COUNTS, (SUBSETS[0], 'train'): 7})]


def test_an_older_version_is_refused_with_the_command_to_run(tmp_path: Path, few_by_default: list) -> None:
    ensure_minibench(tmp_path)
    marker = json.loads((tmp_path / MARKER).read_text())
    (tmp_path / MARKER).write_text(json.dumps({**marker, 'version': 1}))
    with pytest.raises(InputError, match=rf'version 2, got 1 .*make_minibench\.py {tmp_path} --overwrite'):
        ensure_minibench(tmp_path)
    assert len(few_by_default) == 1
    make_minibench(tmp_path, counts={(SUBSETS[0], 'test'): 1}, workers=1, **SMALL)
    assert is_complete(tmp_path)


def test_annotations_are_the_same_on_every_machine(made: Path) -> None:
    """Pinned digests: if one changes, the generator changed, and ``VERSION`` must be raised with it."""
    digests = {name: hashlib.sha256((made / name / 'test.json').read_bytes()).hexdigest()[:16] for name in SUBSETS}
    assert (writer.VERSION, digests) == (2, PINNED)
