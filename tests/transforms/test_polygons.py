"""Polygons against bitmaps that pycocotools drew first and mmdet moved afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from transform_samples import random_info

from armbench_mmdet.transforms import Polygons
from armbench_mmdet.transforms.polygons import trace_bitmap


def nested(seed: int, width: int, height: int) -> list[list[np.ndarray]]:
    return [[np.array(part) for part in item['mask']] for item in random_info(seed, width, height)['instances']]


def as_bitmaps(masks: list[list[np.ndarray]], width: int, height: int) -> BitmapMasks:
    return BitmapMasks(PolygonMasks(masks, height, width).to_ndarray().astype(np.uint8), height, width)


def random_steps(rng: np.random.Generator, count: int) -> list[tuple[str, tuple]]:
    steps: list[tuple[str, tuple]] = []
    for _ in range(count):
        kind = rng.choice(['flip', 'resize', 'rescale', 'crop', 'pad', 'expand'])
        low, high = rng.uniform(0, 0.4, 2), rng.uniform(0.5, 1, 2)
        arguments = {
            'flip': (str(rng.choice(['horizontal', 'vertical', 'diagonal'])),),
            'resize': (tuple(rng.integers(5, 160, 2).tolist()),),
            'rescale': (tuple(sorted(rng.integers(8, 160, 2).tolist())),),
            'crop': (np.concatenate([low, high]),),
            'pad': (tuple(rng.integers(0, 40, 2).tolist()),),
            'expand': tuple(rng.integers(0, 20, 4).tolist()),
        }
        steps.append((str(kind), arguments[str(kind)]))
    return steps


def apply(masks: BitmapMasks | Polygons, kind: str, arguments: tuple) -> BitmapMasks | Polygons:
    height, width = masks.height, masks.width
    if kind == 'crop':
        return masks.crop((arguments[0] * [width, height, width, height]).astype(int))
    if kind == 'pad':
        return masks.pad((height + arguments[0][0], width + arguments[0][1]))
    if kind == 'expand':
        top, left, below, right = arguments
        return masks.expand(height + top + below, width + left + right, top, left)
    return getattr(masks, kind)(*arguments)


@pytest.mark.parametrize('seed', range(40))
def test_any_chain_of_moves_gives_the_bits_of_the_stock_bitmaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(20, 120, 2).tolist()
    masks = nested(seed, width, height)
    stock, ours = as_bitmaps(masks, width, height), Polygons(masks, height, width)
    for kind, arguments in random_steps(rng, 5):
        stock, ours = apply(stock, kind, arguments), apply(ours, kind, arguments)
        assert (ours.height, ours.width) == (stock.height, stock.width)
        np.testing.assert_array_equal(ours.to_ndarray(), stock.masks, err_msg=f'after {kind}{arguments}')
        np.testing.assert_array_equal(ours.areas, stock.areas)
        np.testing.assert_array_equal(ours.get_bboxes('hbox').tensor, stock.get_bboxes('hbox').tensor)


def test_centred_sampling_follows_the_image() -> None:
    masks = nested(3, 100, 80)
    large = as_bitmaps(masks, 100, 80).masks
    small = Polygons(masks, 80, 100, centred=True).resize((16, 20)).to_ndarray()
    np.testing.assert_array_equal(small, large[:, 2::5, 2::5])


@pytest.mark.parametrize(
    'index', [np.array([2, 0]), np.array([True, False, True, False, False, True]), [1], 3, slice(1, 4)]
)
def test_choosing_instances(index: object) -> None:
    masks = nested(1, 60, 50)
    ours = Polygons(masks, 50, 60).flip('horizontal').crop(np.array([5, 5, 40, 45]))
    chosen = ours[index]
    np.testing.assert_array_equal(chosen.to_ndarray(), np.atleast_3d(ours.to_ndarray()[index]).reshape(-1, 40, 35))
    np.testing.assert_array_equal(chosen.areas, np.atleast_1d(ours.areas[index]))


def test_no_instance() -> None:
    none = Polygons([], 30, 40).flip('diagonal').resize((15, 20)).crop(np.array([0, 0, 10, 10])).pad((32, 32))
    assert none.to_ndarray().shape == (0, 32, 32)
    assert none.to_tensor(torch.bool, 'cpu').shape == (0, 32, 32)
    assert none.areas.shape == (0,)
    assert none.get_bboxes('hbox').tensor.shape == (0, 4)
    assert none.masks == []
    assert none.crop_and_resize(np.zeros((0, 4), np.float32), (28, 28), np.zeros(0, int)).masks.shape == (0, 28, 28)


def test_mask_targets_equal_stock_polygons() -> None:
    rng = np.random.default_rng(0)
    masks = nested(7, 200, 150)
    boxes = np.sort(rng.uniform(0, 150, (60, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    boxes[0, 2:] = boxes[0, :2]
    indices = rng.integers(0, len(masks), 60)
    stock = PolygonMasks(masks, 150, 200).crop_and_resize(boxes, (28, 28), indices).to_ndarray()
    ours = Polygons(masks, 150, 200).crop_and_resize(boxes, (28, 28), indices).to_ndarray()
    np.testing.assert_array_equal(ours, stock)


def test_coordinates_follow_the_canvas() -> None:
    masks = nested(5, 100, 80)
    stock, ours = PolygonMasks(masks, 80, 100), Polygons(masks, 80, 100)
    for step in (lambda m: m.flip('horizontal'), lambda m: m.resize((40, 60)), lambda m: m.flip('vertical')):
        stock, ours = step(stock), step(ours)
    for first, second in zip(stock.masks, ours.masks, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b)


def test_joining() -> None:
    ours = Polygons(nested(2, 60, 50), 50, 60).flip('horizontal')
    joined = Polygons.cat([ours[:2], ours[4:]])
    np.testing.assert_array_equal(joined.to_ndarray(), ours.to_ndarray()[[0, 1, 4, 5]])
    with pytest.raises(ValueError, match='one canvas'):
        Polygons.cat([ours, ours.flip('horizontal').resize((10, 10))])


@pytest.mark.parametrize('fraction', [0.0, 0.02, 0.5, 0.98, 1.0])
def test_traced_bitmaps_are_exact(fraction: float) -> None:
    bitmaps = (np.random.default_rng(1).random((4, 23, 31)) < fraction).astype(np.uint8)
    traced = Polygons.from_bitmaps(bitmaps)
    np.testing.assert_array_equal(traced.to_ndarray(), bitmaps)
    np.testing.assert_array_equal(
        traced.flip('diagonal').resize((11, 50)).to_ndarray(),
        BitmapMasks(bitmaps, 23, 31).flip('diagonal').resize((11, 50)).masks,
    )


def test_one_pixel_is_one_square() -> None:
    bitmap = np.zeros((5, 6), np.uint8)
    bitmap[3, 2] = 1
    assert Polygons([trace_bitmap(bitmap)], 5, 6).measure().tolist() == [[1, 2, 3, 3, 4]]
