"""Decoding and resampling."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms import FloorResize, RenderFloatImage, RenderImage
from armbench_mmdet.transforms.loading import warp


def picture(height: int = 64, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def described(path: Path, height: int = 64, width: int = 80, **more: object) -> dict:
    return {'img_path': str(path), 'ori_shape': (height, width), 'img_shape': (height, width), **more}


MOVES = {
    'nothing': (np.eye(3), (64, 80), lambda image: image),
    'half': (np.diag([0.5, 0.5, 1]), (32, 40), lambda image: cv2.resize(image, (40, 32))),
    'larger, cropped': (
        np.array([[1.5, 0, -30], [0, 1.5, -20], [0, 0, 1]]),
        (60, 70),
        lambda image: cv2.resize(image, (120, 96))[20:80, 30:100],
    ),
    'mirrored': (np.array([[-1, 0, 80], [0, 1, 0], [0, 0, 1.0]]), (64, 80), lambda image: image[:, ::-1]),
    'turned around': (np.array([[-1, 0, 80], [0, -1, 64], [0, 0, 1.0]]), (64, 80), lambda image: image[::-1, ::-1]),
    'a small window of a large image': (
        np.array([[3, 0, -90], [0, 3, -60], [0, 0, 1.0]]),
        (24, 30),
        lambda image: cv2.resize(image, (240, 192))[60:84, 90:120],
    ),
}


@pytest.mark.parametrize(('matrix', 'shape', 'expected'), MOVES.values(), ids=MOVES.keys())
def test_warp_equals_resize_and_crop(matrix: np.ndarray, shape: tuple[int, int], expected: object) -> None:
    image = picture()
    out = warp(image, matrix, shape)
    assert out.shape == (*shape, 3)
    assert np.abs(out.astype(int) - expected(image)).max() <= 2


def test_warp_repeats_the_border_outside() -> None:
    out = warp(np.full((4, 4, 3), 9, np.uint8), np.array([[1, 0, 3], [0, 1, 3], [0, 0, 1.0]]), (10, 10))
    assert (out == 9).all()


@pytest.mark.parametrize('scale', [0.5, 0.25, 0.125, 0.3])
def test_reduced_decoding_applies_to_jpeg_only(tmp_path: Path, scale: float) -> None:
    shape = (round(64 * scale), round(80 * scale))
    matrix = np.diag([shape[1] / 80, shape[0] / 64, 1.0])
    outputs = {}
    for suffix in ('.png', '.jpg'):
        path = tmp_path / f'picture{suffix}'
        cv2.imwrite(str(path), picture())
        for reduced in (True, False):
            results = described(path, homography_matrix=matrix)
            results['img_shape'] = shape
            outputs[suffix, reduced] = RenderImage(reduced_decoding=reduced)(results)['img']
    np.testing.assert_array_equal(outputs['.png', True], outputs['.png', False])
    assert (outputs['.jpg', True] != outputs['.jpg', False]).any()
    assert np.abs(outputs['.jpg', True].astype(int) - outputs['.jpg', False]).mean() < 20


def test_an_image_already_there_is_kept() -> None:
    image = picture()
    results = {'img': image, 'img_path': 'nowhere.jpg'}
    assert RenderImage()(results)['img'] is image


@pytest.mark.parametrize('height', [63, 32])
def test_an_image_of_another_size_than_annotated_is_named(tmp_path: Path, height: int) -> None:
    path = tmp_path / 'bad.jpg'
    cv2.imwrite(str(path), picture())
    with pytest.raises(InputError, match=rf'80x{height} as annotated, got 80x64 .*bad\.jpg'):
        RenderImage()(described(path, height=height))


def test_float_image_is_the_whole_photo_resized_without_rounding(tmp_path: Path) -> None:
    image = picture()
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    info = FloorResize(scale=(53, 41), keep_ratio=True).transform(described(tmp_path / 'a.png'))
    assert info['img_shape'] == (41, 51), '51.25, cut off'
    resized = RenderFloatImage().transform(info)['img']
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(planes, (41, 51), mode='bilinear')[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(resized, expected)
    mirror = np.array([[-1, 0, 80], [0, 1, 0], [0, 0, 1.0]])
    flipped = RenderFloatImage().transform(described(tmp_path / 'a.png', homography_matrix=mirror))['img']
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    shifted = np.array([[1, 0, -4], [0, 1, 0], [0, 0, 1.0]])
    with pytest.raises(InputError, match='no crop'):
        RenderFloatImage().transform(described(tmp_path / 'a.png', homography_matrix=shifted))
