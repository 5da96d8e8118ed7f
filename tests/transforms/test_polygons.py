"""Polygons: where their pixels lie after any move, against the polygon itself and against stock mmdet."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from transform_samples import covered, disc, iou, random_info, star

from armbench_mmdet.transforms.polygons import Polygons


def nested(seed: int, width: int, height: int) -> list[list[np.ndarray]]:
    return [[np.array(part) for part in item['mask']] for item in random_info(seed, width, height)['instances']]


def randomly_moved(
    masks: Polygons, points: np.ndarray, rng: np.random.Generator, count: int, sizes: tuple[int, int]
) -> tuple[Polygons, np.ndarray]:
    """Masks after random moves that end with sides between the sizes, and a polygon (V, 2) moved by hand and drawn.

    It is drawn by its coverage, in the part of the canvas that was never outside.
    """
    window = np.array([[0, 0], [masks.width, masks.height]], float)
    for kind in [*rng.choice(['flip', 'resize', 'crop', 'expand'], count), 'resize']:
        size, factor, offset = np.array([masks.width, masks.height]), np.ones(2), np.zeros(2)
        if kind == 'flip':
            direction = str(rng.choice(['horizontal', 'vertical', 'diagonal']))
            across = np.array([direction != 'vertical', direction != 'horizontal'])
            factor, offset = 1 - 2 * across, across * size
            masks = masks.flip(direction)
        elif kind == 'resize':
            shape = tuple(rng.integers(*sizes, 2).tolist())
            factor = shape[::-1] / size
            masks = masks.resize(shape)
        elif kind == 'crop':
            box = (np.concatenate([rng.uniform(0, 0.2, 2), rng.uniform(0.8, 1, 2)]) * np.tile(size, 2)).astype(int)
            offset = -box[:2]
            masks = masks.crop(box)
        else:
            top, left, below, right = rng.integers(0, 20, 4).tolist()
            offset = np.array([left, top])
            masks = masks.expand(masks.height + top + below, masks.width + left + right, top, left)
        points = points * factor + offset
        window = np.sort(window * factor + offset, axis=0).clip(0, (masks.width, masks.height))
    (x1, y1), (x2, y2) = np.round(window).astype(int).tolist()
    shown = np.zeros((masks.height, masks.width), bool)
    shown[y1:y2, x1:x2] = covered(points, masks.height, masks.width)[y1:y2, x1:x2]
    return masks, shown


# Sides in px of the final instances, of COCO's small (area under 32²), medium and large (from 96²).
SIZES = {'small': (10, 32), 'medium': (36, 96), 'large': (110, 300)}


@pytest.mark.parametrize('size', SIZES)
def test_masks_cover_what_the_polygon_covers(size: str) -> None:
    agreements = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        # Nearly the whole canvas, so that the final resize sets the instance's size.
        shape = np.array(star(rng, (200, 150), rng.uniform(120, 150))).reshape(-1, 2) * [1.3, 1] - [60, 0]
        masks, expected = randomly_moved(Polygons([[shape.reshape(-1)]], 300, 400), shape, rng, seed % 4, SIZES[size])
        agreements.append(iou(masks.to_ndarray()[0], expected))
    assert np.mean(agreements) >= 0.99, agreements
    assert min(agreements) > 0.94, agreements


@pytest.mark.parametrize('seed', range(20))
def test_outlines_lie_within_a_pixel_of_stock(seed: int) -> None:
    """Stock draws first and reads the bitmap's pixels from there: half a pixel off, and in steps when enlarged."""
    rng = np.random.default_rng(seed)
    masks = [[np.array(disc((200 + dx, 150), radius))] for dx, radius in ((0, 140), (60, 45), (-90, 25))]
    bitmaps = PolygonMasks(masks, 300, 400).to_ndarray().astype(np.uint8)
    stock, ours = BitmapMasks(bitmaps, 300, 400), Polygons(masks, 300, 400)
    flip, size = str(rng.choice(['horizontal', 'vertical'])), rng.integers(60, (300, 400)).tolist()
    crop = (np.array([0.1, 0.1, 0.9, 0.8]) * np.tile(size[::-1], 2)).astype(int)
    stock, ours = (masks.flip(flip).resize(tuple(size)).crop(crop) for masks in (stock, ours))
    assert (ours.height, ours.width) == (stock.height, stock.width)
    near = np.ones((3, 3), np.uint8)
    for first, second in zip(ours.to_ndarray(), stock.masks, strict=True):
        assert not (first & ~cv2.dilate(second, near)).any()
        assert not (second & ~cv2.dilate(first, near)).any()
    assert np.abs(ours.get_bboxes('hbox').tensor - stock.get_bboxes('hbox').tensor).max() <= 1
    np.testing.assert_allclose(ours.areas, stock.areas, rtol=0.1, atol=5)
    np.testing.assert_array_equal(ours.areas, ours.to_ndarray().sum((1, 2)))


@pytest.mark.parametrize('index', [np.array([2, 0]), np.array([1, 0, 1, 0, 0, 1], bool), [1], 3, slice(1, 4)])
def test_choosing_instances(index: object) -> None:
    masks = nested(1, 60, 50)
    ours = Polygons(masks, 50, 60).flip('horizontal').crop(np.array([5, 5, 40, 45]))
    expected = np.atleast_3d(ours[slice(None)].to_ndarray()[index]).reshape(-1, 40, 35)
    for chosen in (ours[index], Polygons(masks, 50, 60)[index].flip('horizontal').crop(np.array([5, 5, 40, 45]))):
        np.testing.assert_array_equal(chosen.to_ndarray(), expected)
        np.testing.assert_array_equal(chosen.areas, expected.sum((1, 2)))


def test_no_instance() -> None:
    none = Polygons([], 30, 40).flip('diagonal').resize((15, 20)).crop(np.array([0, 0, 10, 10])).pad((32, 32))
    assert none.to_tensor(torch.bool, 'cpu').shape == (0, 32, 32)
    targets = none.crop_and_resize(np.zeros((0, 4), np.float32), (28, 28), np.zeros(0, int))
    assert targets.to_ndarray().shape == (0, 28, 28)


def test_coordinates_and_mask_targets_are_those_of_stock_polygons() -> None:
    rng = np.random.default_rng(0)
    masks = nested(7, 200, 150)
    stock, ours = PolygonMasks(masks, 150, 200), Polygons(masks, 150, 200)
    for step in (lambda m: m.flip('horizontal'), lambda m: m.resize((75, 120)), lambda m: m.flip('vertical')):
        stock, ours = step(stock), step(ours)
    for first, second in zip(stock.masks, ours, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b)
    boxes = np.sort(rng.uniform(0, 75, (60, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    boxes[0, 2:] = boxes[0, :2]
    indices = rng.integers(0, len(masks), 60)
    expected, found = (m.crop_and_resize(boxes, (28, 28), indices).to_ndarray() for m in (stock, ours))
    np.testing.assert_array_equal(found, expected)


ISLANDS = np.zeros((23, 31), np.uint8)
ISLANDS[3:20, 4:25] = 1
ISLANDS[6:16, 8:20] = 0
ISLANDS[8:12, 10:14] = 1
ONE = np.zeros((23, 31), np.uint8)
ONE[3, 2] = 1
NOISE = {fraction: np.random.default_rng(1).random((23, 31)) < fraction for fraction in (0.0, 0.02, 0.5, 0.98, 1.0)}
BITMAPS = {'a hole with an island': ISLANDS, 'one pixel': ONE, **{f'noise {key}': one for key, one in NOISE.items()}}


@pytest.mark.parametrize('bitmap', BITMAPS.values(), ids=BITMAPS)
def test_traced_bitmaps_are_exact(bitmap: np.ndarray) -> None:
    bitmap = bitmap.astype(np.uint8)
    traced = Polygons.from_bitmaps(np.stack([bitmap, bitmap]))
    np.testing.assert_array_equal(traced.to_ndarray(), [bitmap, bitmap])
    np.testing.assert_array_equal(traced.flip('diagonal').to_ndarray()[0], bitmap[::-1, ::-1])
    np.testing.assert_array_equal(traced.resize((69, 93)).to_ndarray()[0], np.kron(bitmap, np.ones((3, 3), np.uint8)))
