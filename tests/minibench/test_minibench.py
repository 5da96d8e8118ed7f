"""Minibench: scenes and annotations that say what they hold; the folder, reproducible, unfinished, old or foreign."""

import functools
import hashlib
import json
import re
import signal
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from armbench_mmdet.errors import InputError
from armbench_mmdet.minibench import DEFAULT_COUNTS, SUBSETS, ensure_minibench, make_minibench, writer
from armbench_mmdet.minibench import scene as rendering
from armbench_mmdet.minibench.camera import Camera, Light, Pose
from armbench_mmdet.minibench.layout import Ground, copies
from armbench_mmdet.minibench.objects import KINDS
from armbench_mmdet.minibench.paint import Brush
from armbench_mmdet.minibench.scene import Scene, mask_polygons, render_scene, scene_annotations
from armbench_mmdet.minibench.writer import MARKER, image_name, is_complete

MIX, ZOOMED_OUT, SAME_OBJECT = SUBSETS
SIZES = ((320, 256), (64, 64), (64, 100), (150, 64), (321, 255), (900, 720))


@functools.cache
def scenes(subset: str, count: int, size: tuple[int, int] = SIZES[0]) -> list[Scene]:
    return [render_scene(np.random.default_rng([11, SUBSETS.index(subset), 0, i]), subset, *size) for i in range(count)]


def iou_and_box(polygons: list[list[float]], mask: np.ndarray) -> tuple[float, list[int]]:
    """The overlap of a mask with polygons as pycocotools rasterises them, and the mask's box."""
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))).astype(bool)
    ys, xs = np.nonzero(mask)
    box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    return np.count_nonzero(drawn & mask) / np.count_nonzero(drawn | mask), box


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('subset', SUBSETS)
def test_annotations_agree_with_the_picture_at_any_size(subset: str, size: tuple[int, int]) -> None:
    for scene in scenes(subset, 4, size):
        assert (scene.image.shape, scene.image.dtype) == ((size[1], size[0], 3), np.uint8)
        assert (scene.id_map.shape, scene.id_map.dtype) == ((size[1], size[0]), np.int32)
        numbers = range(1, len(scene.visible_fracs) + 1)
        assert set(np.unique(scene.id_map)) - {0} == set(numbers)
        totes = [] if scene.tote_mask is None else [scene.tote_mask]
        assert len(totes) == (subset != SAME_OBJECT), 'as in the release, no tote, and the object has id 1'
        truths = [*totes, *(scene.id_map == number for number in numbers)]
        ids = [1] * len(totes) + [1 + len(totes)] * len(numbers)
        rows = scene_annotations(scene)
        assert [row['category_id'] for row in rows] == ids
        for row, truth in zip(rows, truths, strict=True):
            overlap, box = iou_and_box(row['segmentation'], truth)
            assert overlap >= 0.99 or truth.sum() < 30
            assert (row['bbox'], row['area'], row['iscrowd']) == (box, truth.sum(), 0)
            assert rendering.MIN_VISIBLE_FRAC <= row['visible_frac'] <= 1
            assert row['area'] >= rendering.MIN_VISIBLE_AREA_FRAC * truth.size


def masks() -> dict[str, np.ndarray]:
    yy, xx = np.mgrid[:40, :50]
    distance = (xx - 25) ** 2 + (yy - 20) ** 2
    square_1, square_2, block = ((yy >= a) & (yy < b) & (xx >= a) & (xx < b) for a, b in ((8, 14), (20, 30), (2, 38)))
    return {
        'pixel': (yy == 39) & (xx == 49),
        'row': (yy == 0) & (xx > 2) & (xx < 20),
        'rectangle': (yy > 4) & (yy < 20) & (xx > 6) & (xx < 31),
        'whole': yy >= 0,
        'triangle': (xx > yy) & (xx < 45),
        'ring': (distance < 18**2) & (distance > 8**2),
        'two holes': block & ~square_1 & ~square_2,
        'two parts': square_1 | square_2,
        'thin cross': ((yy == 20) & (xx > 3) & (xx < 46)) | ((xx == 25) & (yy > 2) & (yy < 37)),
        'checkers': (xx // 5 + yy // 5) % 2 == 0,
    }


@pytest.mark.parametrize('name', masks())
def test_polygons_give_the_mask_back(name: str) -> None:
    mask = masks()[name]
    polygons, box = mask_polygons(mask)
    overlap, expected = iou_and_box(polygons, mask)
    assert overlap >= 0.99
    assert box == expected
    assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)
    assert name != 'rectangle' or [len(polygon) <= 16 for polygon in polygons] == [True]


def test_totes_are_full_and_objects_partly_hidden_and_unlike_the_floor() -> None:
    mixed = scenes(MIX, 60)
    counts = [len(scene.visible_fracs) for scene in mixed]
    hidden = [share < 0.95 for scene in mixed for share in scene.visible_fracs]
    assert 1 <= counts.count(0) <= 6
    assert np.median(counts) >= 7
    assert max(counts) <= 20
    assert np.mean(hidden) >= 0.25
    close = []
    for scene in mixed:
        assert not scene.id_map.any() or scene.tote_mask[scene.id_map > 0].mean() > 0.9, 'the silhouette has no cuts'
        floor = scene.image[scene.tote_mask & (scene.id_map == 0)].mean(axis=0)
        ids = np.unique(scene.id_map)[1:]
        close += [np.abs(scene.image[scene.id_map == number] - floor).mean() < 12 for number in ids]
    assert np.mean(close) < 0.1


def test_zoomed_out_totes_are_small() -> None:
    near, far = ([s.tote_mask.any(axis=0).mean() for s in scenes(subset, 8)] for subset in (MIX, ZOOMED_OUT))
    assert min(near) > 0.85
    assert 0.4 < min(far) < max(far) < 0.72


def test_same_object_scenes_hold_a_few_copies_some_of_them_touching() -> None:
    touching = []
    for scene in scenes(SAME_OBJECT, 20):
        assert 1 <= len(scene.visible_fracs) <= 10
        assert min(scene.visible_fracs) > 0.6
        ids = scene.id_map
        pairs = ((ids[:, 3:], ids[:, :-3]), (ids[3:], ids[:-3]))
        touching.append(any(((a != b) & (a > 0) & (b > 0)).any() for a, b in pairs))
    assert 0.2 < np.mean(touching) < 0.8
    for cells in (None, (3, 2)):
        items = copies(np.random.default_rng(1), Ground(0.4, 0.3), cells)
        assert len({(item.kind, item.look_seed) for item in items}) == 1


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.paint.__name__)
def test_every_kind_fills_its_patch(kind) -> None:
    """Each kind leaves a mask inside its patch that is about as large as its length and width say."""
    camera = Camera(600.0, (0.0, 0.0, 1.4), (300.0, 200.0), (1.0, 0.0))
    pose = Pose.resting(0.2, -0.1, 0.0, (0.8, 0.6))
    size = kind.sample_size(np.random.default_rng(1), 1.0)
    brush = Brush(camera, Light(0.3, 0.2, 0.933, 0.4), pose, size, (90, 120, 140))
    kind.paint(brush, np.random.default_rng(2))
    assert not brush.mask[[0, -1]].any()
    assert not brush.mask[:, [0, -1]].any()
    area = np.count_nonzero(brush.mask) / brush.scale_px**2
    assert 0.4 * size[0] * size[1] < area < 3.0 * (size[0] * size[1] + size[0] * size[2])
    assert brush.image[brush.mask > 0].std() > 3


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


def test_the_folder_has_armbenchs_shape(made: dict[str, bytes]) -> None:
    for (subset, split), count in COUNTS.items():
        content = json.loads(made[f'{subset}/{split}.json'])
        assert [row['id'] for row in content['images']] == list(range(1, count + 1))
        assert [row['id'] for row in content['annotations']] == list(range(1, len(content['annotations']) + 1))
        names = ['Object'] if subset == SAME_OBJECT else ['Tote', 'Object']
        assert [(row['id'], row['name']) for row in content['categories']] == [*enumerate(names, 1)]
        assert {row['image_id'] for row in content['annotations']} == set(range(1, count + 1))
        for row in content['images']:
            assert re.fullmatch(r'[0-9A-Z]{10}\.jpg', row['file_name'])
            picture = np.frombuffer(made[f'{subset}/images/{row["file_name"]}'], np.uint8)
            assert cv2.imdecode(picture, cv2.IMREAD_COLOR).shape == (row['height'], row['width'], 3)
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
