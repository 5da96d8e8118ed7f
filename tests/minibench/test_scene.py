import numpy as np
import pytest

from armbench_mmdet.minibench.camera import Camera, Light, Pose
from armbench_mmdet.minibench.layout import KINDS
from armbench_mmdet.minibench.paint import Brush
from armbench_mmdet.minibench.scene import (
    MIN_VISIBLE_AREA_FRAC,
    MIN_VISIBLE_FRAC,
    MIX,
    SAME_OBJECT,
    SUBSETS,
    ZOOMED_OUT,
    Scene,
    render_scene,
)

SIZE = (320, 256)


def scenes(subset: str, count: int) -> list[Scene]:
    return [render_scene(np.random.default_rng([11, SUBSETS.index(subset), 0, i]), subset, *SIZE) for i in range(count)]


@pytest.fixture(scope='module')
def mixed() -> list[Scene]:
    return scenes(MIX, 24)


@pytest.mark.parametrize('size', [(64, 64), (64, 100), (150, 64), (321, 255), (900, 720)], ids=str)
@pytest.mark.parametrize('subset', SUBSETS)
def test_any_size(subset: str, size: tuple[int, int]) -> None:
    scene = render_scene(np.random.default_rng(3), subset, *size)
    assert scene.image.shape == (size[1], size[0], 3)
    assert scene.image.dtype == np.uint8
    assert (scene.id_map.shape, scene.id_map.dtype) == ((size[1], size[0]), np.int32)
    if subset == SAME_OBJECT:
        assert scene.tote_mask is None
        return
    assert (scene.tote_mask.shape, scene.tote_mask.dtype) == ((size[1], size[0]), bool)
    assert scene.tote_mask.any()


@pytest.mark.parametrize('subset', SUBSETS)
def test_no_object_shows_too_little(subset: str) -> None:
    for scene in scenes(subset, 5):
        for item in scene.objects:
            assert MIN_VISIBLE_FRAC <= item.visible_frac <= 1
            assert np.count_nonzero(scene.id_map == item.id) >= MIN_VISIBLE_AREA_FRAC * scene.id_map.size


def test_totes_are_full_and_objects_partly_hidden(mixed: list[Scene]) -> None:
    counts = [len(scene.objects) for scene in mixed]
    hidden = [item.visible_frac < 0.95 for scene in mixed for item in scene.objects]
    assert np.median(counts) >= 7
    assert min(counts) <= 4
    assert max(counts) <= 20
    assert np.mean(hidden) >= 0.25
    assert len({item.kind for scene in mixed for item in scene.objects}) >= 12


def test_objects_stand_out_from_the_floor(mixed: list[Scene]) -> None:
    """Few objects have nearly the mean colour of the tote around them."""
    close = []
    for scene in mixed:
        floor = scene.image[scene.tote_mask & (scene.id_map == 0)].mean(axis=0)
        close += [np.abs(scene.image[scene.id_map == o.id] - floor).mean() < 12 for o in scene.objects]
    assert np.mean(close) < 0.1


def tote_width_frac(scene: Scene) -> float:
    return np.count_nonzero(scene.tote_mask.any(axis=0)) / SIZE[0]


def test_zoomed_out_totes_are_small(mixed: list[Scene]) -> None:
    assert min(tote_width_frac(scene) for scene in mixed) > 0.85
    widths = [tote_width_frac(scene) for scene in scenes(ZOOMED_OUT, 8)]
    assert min(widths) > 0.4
    assert max(widths) < 0.72


def test_same_object_scenes_hold_a_few_copies_some_of_them_touching() -> None:
    touching = []
    for scene in scenes(SAME_OBJECT, 20):
        assert len({item.kind for item in scene.objects}) == 1
        assert 1 <= len(scene.objects) <= 10
        assert all(item.visible_frac > 0.6 for item in scene.objects)
        ids = scene.id_map
        pairs = ((ids[:, 3:], ids[:, :-3]), (ids[3:], ids[:-3]))
        touching.append(any(((a != b) & (a > 0) & (b > 0)).any() for a, b in pairs))
    assert 0.2 < np.mean(touching) < 0.8


def test_some_totes_are_empty() -> None:
    counts = [len(scene.objects) for scene in scenes(MIX, 60)]
    assert 1 <= counts.count(0) <= 6


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.name)
def test_every_kind_fills_its_patch(kind) -> None:
    """Each kind leaves a mask inside its patch that is about as large as its length and width say."""
    camera = Camera(600.0, (0.0, 0.0, 1.4), (300.0, 200.0), (1.0, 0.0))
    pose = Pose.resting(0.2, -0.1, 0.0, (0.8, 0.6))
    size = kind.sample_size(np.random.default_rng(1), 1.0)
    brush = Brush(camera, Light(0.3, 0.2, 0.933, 0.4), pose, size, (90, 120, 140))
    kind.paint(brush, np.random.default_rng(2))
    border = np.concatenate([brush.mask[0], brush.mask[-1], brush.mask[:, 0], brush.mask[:, -1]])
    assert not border.any()
    area = np.count_nonzero(brush.mask) / brush.scale_px**2
    assert 0.4 * size[0] * size[1] < area < 3.0 * (size[0] * size[1] + size[0] * size[2])
    assert brush.image[brush.mask > 0].std() > 3
