import numpy as np
import pytest
from pycocotools import mask as coco_mask

from armbench_mmdet.minibench.scene import SUBSETS, mask_polygons, render_scene, scene_annotations

WIDTH_PX, HEIGHT_PX = 320, 256


def rasterised(polygons: list[list[float]], height_px: int, width_px: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height_px, width_px))).astype(bool)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def shape_mask(name: str) -> np.ndarray:
    mask = np.zeros((40, 50), bool)
    yy, xx = np.mgrid[:40, :50]
    distance = (xx - 25) ** 2 + (yy - 20) ** 2
    match name:
        case 'pixel':
            mask[39, 49] = True
        case 'row':
            mask[0, 3:20] = True
        case 'rectangle':
            mask[5:20, 7:31] = True
        case 'whole':
            mask[:] = True
        case 'triangle':
            mask = (xx > yy) & (xx < 45)
        case 'ring':
            mask = (distance < 18**2) & (distance > 8**2)
        case 'two holes':
            mask[2:38, 2:48] = True
            mask[8:14, 8:14] = mask[20:30, 30:40] = False
        case 'two parts':
            mask[3:12, 3:12] = mask[20:39, 30:49] = True
        case 'thin cross':
            mask[20, 4:46] = mask[3:37, 25] = True
        case 'checkers':
            mask = (xx // 5 + yy // 5) % 2 == 0
    return mask


SHAPES = ('pixel', 'row', 'rectangle', 'whole', 'triangle', 'ring', 'two holes', 'two parts', 'thin cross', 'checkers')


@pytest.mark.parametrize('name', SHAPES)
def test_polygons_give_the_mask_back(name: str) -> None:
    mask = shape_mask(name)
    polygons, (left, top, width, height) = mask_polygons(mask)
    assert iou(rasterised(polygons, *mask.shape), mask) >= 0.99
    ys, xs = np.nonzero(mask)
    assert (left, top, width, height) == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
    assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)


def test_a_rectangle_takes_four_points_on_its_pixels_edges() -> None:
    polygons, _ = mask_polygons(shape_mask('rectangle'))
    points = np.array(polygons[0]).reshape(-1, 2)
    assert len(polygons) == 1
    assert len(points) <= 8
    assert points.min(axis=0) == pytest.approx((7, 5), abs=0.51)
    assert points.max(axis=0) == pytest.approx((31, 20), abs=0.51)


@pytest.mark.parametrize('subset', range(3), ids=SUBSETS)
@pytest.mark.parametrize('index', range(4))
def test_annotations_agree_with_the_id_map(subset: int, index: int) -> None:
    scene = render_scene(np.random.default_rng([5, subset, 0, index]), SUBSETS[subset], WIDTH_PX, HEIGHT_PX)
    rows = scene_annotations(scene)
    truths, ids = [scene.id_map == item.id for item in scene.objects], [2] * len(scene.objects)
    if subset == 2:  # as in the release, no tote, and the object's id is 1
        ids = [1] * len(scene.objects)
    else:
        truths, ids = [scene.tote_mask, *truths], [1, *ids]
    assert [row['category_id'] for row in rows] == ids
    assert set(np.unique(scene.id_map)) - {0} == {item.id for item in scene.objects}
    for row, truth in zip(rows, truths, strict=True):
        assert iou(rasterised(row['segmentation'], HEIGHT_PX, WIDTH_PX), truth) >= 0.99
        assert row['area'] == np.count_nonzero(truth)
        ys, xs = np.nonzero(truth)
        assert row['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert row['iscrowd'] == 0
        assert 0 < row['visible_frac'] <= 1


def test_the_tote_is_a_silhouette_without_cuts() -> None:
    scene = render_scene(np.random.default_rng([5, 0, 0, 1]), SUBSETS[0], WIDTH_PX, HEIGHT_PX)
    inside = (scene.id_map > 0) & scene.tote_mask
    assert scene.objects
    assert np.count_nonzero(inside) > 0.95 * np.count_nonzero(scene.id_map)
