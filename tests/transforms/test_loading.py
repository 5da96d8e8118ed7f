"""Loading: polygons as mmdet's own loader has them, an image decoded and resampled once; pipelines beside stock's."""

import copy
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from pycocotools import mask as coco_mask
from transform_samples import disc, instance, random_info, smooth_picture

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import decode_counts
from armbench_mmdet.transforms.loading import FloorResize, LazyResize, LoadPolygons, RenderFloatImage, RenderImage, warp
from armbench_mmdet.transforms.polygons import Polygons
from tools.benchmarks.pipeline import agreement

WIDTH, HEIGHT = 60, 50
SQUARE = [5.0, 5.0, 20.0, 5.0, 20.0, 20.0, 5.0, 20.0]
BITMAP = np.asfortranarray(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5, np.uint8)
COUNTS = coco_mask.encode(BITMAP)['counts']
MASKS = {
    'one polygon': [SQUARE],
    'two overlapping parts': [SQUARE, disc((18, 18), 9)],
    'a part too short to count': [SQUARE, [1.0, 2.0, 3.0, 4.0]],
    'a part of odd length': [SQUARE, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]],
    'no part that counts': [[1.0, 2.0]],
    'no part': [],
    'outside the image': [disc((-10, -10), 25)],
    'negative fractions': [[-0.3, -0.3, 7.7, 0.2, 3.1, 9.9]],
    'run-length text': {'size': [HEIGHT, WIDTH], 'counts': COUNTS.decode()},
}


def annotated(*masks: list | dict, width: int = WIDTH) -> dict:
    size = {'height': HEIGHT, 'width': width, 'ori_shape': (HEIGHT, width), 'img_path': 'a.jpg'}
    return {**size, 'instances': [instance(mask, label, [1, 2, 3, 4]) for label, mask in enumerate(masks)]}


SAMPLES = {name: [mask, [SQUARE]] for name, mask in MASKS.items()} | {'no instance': []}
SAMPLES |= {seed: [one['mask'] for one in random_info(seed, WIDTH, HEIGHT)['instances']] for seed in range(10)}


@pytest.mark.parametrize('masks', SAMPLES.values(), ids=map(str, SAMPLES))
def test_annotations_are_those_of_stock(masks: list) -> None:
    info = annotated(*masks)
    stock = LoadAnnotations(with_bbox=True, with_mask=True).transform(copy.deepcopy(info))
    ours = LoadPolygons().transform(info)
    assert info['instances'] == annotated(*masks)['instances'], 'the entry of the data set must not change'
    assert isinstance(ours['gt_masks'], Polygons)
    np.testing.assert_array_equal(ours['gt_masks'].to_ndarray(), stock['gt_masks'].masks)
    for get in (lambda r: r['gt_bboxes'], lambda r: r['gt_masks'].get_bboxes('hbox')):
        np.testing.assert_array_equal(get(ours).tensor, get(stock).tensor)
    padded, expected = (one['gt_masks'].pad((64, 72)).to_ndarray() for one in (ours, stock))
    np.testing.assert_array_equal(padded, expected)
    for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
        assert ours[key].dtype == stock[key].dtype
        np.testing.assert_array_equal(ours[key], stock[key])


@pytest.mark.parametrize('counts', [COUNTS, decode_counts(COUNTS.decode())], ids=['bytes', 'numbers'])
def test_run_lengths_stock_does_not_read(counts: bytes | list[int]) -> None:
    code = {'size': [HEIGHT, WIDTH], 'counts': counts}
    np.testing.assert_array_equal(LoadPolygons().transform(annotated(code))['gt_masks'].to_ndarray()[0], BITMAP)
    with pytest.raises(InputError, match=r'mask size must be \(50, 61\), got \(50, 60\) \(in a.jpg\)'):
        LoadPolygons().transform(annotated(code, width=61))


def described(path: Path, height: int = 64, width: int = 80, **more: object) -> dict:
    return {'img_path': str(path), 'ori_shape': (height, width), 'img_shape': (height, width), **more}


def test_warp_repeats_the_border_outside() -> None:
    out = warp(np.full((4, 4, 3), 9, np.uint8), np.array([[1, 0, 3], [0, 1, 3], [0, 0, 1.0]]), (10, 10))
    assert (out == 9).all()


@pytest.mark.parametrize('size', [(150, 120), (151, 121), (157, 127)])
@pytest.mark.parametrize('target', [75, 37, 18])
def test_reduced_decoding_is_for_jpeg_and_keeps_the_picture_in_place(tmp_path: Path, size, target) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    image = np.stack([x * 255 / size[0], y * 255 / size[1], (x + y) % 256], axis=2).astype(np.uint8)
    outputs = {}
    for suffix in ('.png', '.jpg'):
        path = tmp_path / f'gradient{suffix}'
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        for reduced in (True, False):
            results = LazyResize(scale=(target, target), keep_ratio=True)(described(path, size[1], size[0]))
            outputs[suffix, reduced] = RenderImage(reduced_decoding=reduced)(results)['img'].astype(int)
    np.testing.assert_array_equal(outputs['.png', True], outputs['.png', False])
    difference = np.abs(outputs['.jpg', True] - outputs['.jpg', False])
    assert 0 < difference[..., :2].mean() < 2.5


@pytest.mark.parametrize('height', [63, 32])
def test_an_image_of_another_size_than_annotated_is_named(tmp_path: Path, height: int) -> None:
    cv2.imwrite(str(tmp_path / 'bad.jpg'), smooth_picture(80, 64))
    with pytest.raises(InputError, match=rf'80x{height} as annotated, got 80x64 .*bad\.jpg'):
        RenderImage()(described(tmp_path / 'bad.jpg', height=height))


def test_float_image_is_the_whole_photo_resized_without_rounding(tmp_path: Path) -> None:
    image, path = smooth_picture(80, 64), tmp_path / 'a.png'
    cv2.imwrite(str(path), image)
    info = FloorResize(scale=(53, 41), keep_ratio=True).transform(described(path))
    assert info['img_shape'] == (41, 51), '51.25, cut off'
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(planes, (41, 51), mode='bilinear')[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(RenderFloatImage().transform(info)['img'], expected)
    mirror = np.array([[-1, 0, 80], [0, 1, 0], [0, 0, 1.0]])
    flipped = RenderFloatImage().transform(described(path, homography_matrix=mirror))['img']
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    with pytest.raises(InputError, match='no crop'):
        RenderFloatImage().transform(described(path, homography_matrix=mirror - [[0, 0, 4], [0, 0, 0], [0, 0, 0]]))


LOAD = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True}]
FLIP = {'type': 'RandomFlip', 'prob': [0.3, 0.3, 0.3], 'direction': ['horizontal', 'vertical', 'diagonal']}
RENDER = {'type': 'RenderImage', 'reduced_decoding': False}
PACK = {'type': 'PackDetInputs'}
JITTERING = [
    FLIP,
    {'type': 'RandomResize', 'scale': (96, 96), 'ratio_range': (0.1, 2.0), 'keep_ratio': True, 'resize_type': 'Resize'},
    {'type': 'RandomCrop', 'crop_size': (96, 96), 'recompute_bbox': True, 'allow_negative_crop': True},
    {'type': 'FilterAnnotations', 'min_gt_bbox_wh': (1e-5, 1e-5), 'by_mask': True},
]
CASES = {
    'large-scale jittering': JITTERING,
    'one scale, polygons kept': [{'type': 'Resize', 'scale': (133, 80), 'keep_ratio': True}, FLIP],
    'crop first, aspect ratio lost': [
        {'type': 'RandomCrop', 'crop_size': (0.6, 0.7), 'crop_type': 'relative_range'},
        {'type': 'Resize', 'scale': (70, 110), 'keep_ratio': False},
        FLIP,
    ],
    'our transforms on an image already loaded': [
        FLIP,
        {'type': 'Resize', 'scale': (96, 96), 'keep_ratio': True},
        {'type': 'RandomCrop', 'crop_size': (40, 40)},
    ],
}
"""Stock's steps between loading and packing."""


def our_pipeline(steps: list[dict], is_loaded: bool = False) -> Compose:
    """The same with our transforms."""
    lazy = []
    for step in steps:
        name = step['type'] if step['type'] in ('RandomResize', 'FilterAnnotations') else f'Lazy{step["type"]}'
        lazy.append({**step, 'type': name, **({'resize_type': 'LazyResize'} if 'resize_type' in step else {})})
    return build([*LOAD[:is_loaded], {'type': 'LoadPolygons'}, *lazy, RENDER, PACK])


def build(steps: list[dict]) -> Compose:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return Compose([dict(step) for step in steps])


def run(pipeline: Compose, info: dict, seed: int) -> dict | None:
    np.random.seed(seed)  # noqa: NPY002 - the transforms draw from the global state
    return pipeline(copy.deepcopy(info))


@pytest.fixture(scope='module')
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('pipelines') / 'picture.jpg'
    cv2.imwrite(str(path), smooth_picture(150, 120))
    return path


@pytest.mark.parametrize('case', CASES)
def test_what_the_model_gets_is_what_stock_gives(case: str, jpeg: Path) -> None:
    stock_run, our_run = build([*LOAD, *CASES[case], PACK]), our_pipeline(CASES[case], case.endswith('loaded'))
    # Flipping before or after an 8-bit resize rounds differently; at the border of a crop stock repeats pixels.
    tolerance = 12 if case.startswith('crop first') else 1
    redrawn = CASES[case] is JITTERING
    distances, ious = [0.0], []
    for seed in range(25):
        info = random_info(seed, 150, 120, path=jpeg)
        stock, ours = run(stock_run, info, seed), run(our_run, info, seed)
        assert (stock is None) == (ours is None)
        if stock is None:
            continue
        difference = (stock['inputs'].float() - ours['inputs'].float()).abs()
        assert difference.max() <= tolerance
        assert difference.mean() < 0.6
        first, second = stock['data_samples'], ours['data_samples']
        assert second.img_shape == first.img_shape
        assert second.scale_factor == pytest.approx(first.scale_factor)
        assert second.ori_shape == first.ori_shape
        assert second.flip_direction == first.flip_direction
        for values, found in zip((distances, ious), agreement(stock, ours), strict=True):
            values.extend(found)
    assert len(ious) > 30
    assert np.median(distances) <= 1 if redrawn else not any(distances)
    # Half a pixel, by which stock is off, weighs at this size.
    assert np.median(ious) > 0.85


def test_polygons_become_pixels_in_the_loader_and_are_padded_as_such(jpeg: Path) -> None:
    """What the model's preprocessor and head make of them on the way is what they would make of bitmaps."""
    loader = our_pipeline(JITTERING)
    for seed in range(10):
        masks = run(loader, random_info(seed, 150, 120, path=jpeg), seed)['data_samples'].gt_instances.masks
        sent = pickle.loads(pickle.dumps(masks))
        assert sent._patches is not None
        bitmaps = BitmapMasks(masks.to_ndarray(), masks.height, masks.width)
        tensors = [some.pad((128, 128), pad_val=0).to_tensor(torch.bool, 'cpu') for some in (sent, bitmaps)]
        assert torch.equal(*tensors)
