"""Run lengths against stock pasting, but for pixels on the threshold, and against pycocotools, both ways."""

import tracemalloc

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures.mask import encode_mask_results
from pycocotools import mask as mask_api
from torch.nn.functional import interpolate

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import RleMasks, decode_counts, decode_mask, encode_masks, fits_image
from armbench_mmdet.masks.runs import Runs, mask_nms, runs_of, shared_pixels
from armbench_mmdet.masks.upsample import encode_boxed_masks


def assert_as_stock(masks, boxes, height, width, threshold=0.5):
    """As FCNMaskHead on the CPU pastes them, one mask after another; pixels within 1e-4 of the threshold may differ."""
    ours = RleMasks(encode_boxed_masks(masks, boxes, height, width, threshold=threshold), height, width).numpy()
    for i in range(len(masks)):
        values = torch.full((height, width), -1.0)
        part, (rows, columns) = _do_paste_mask(masks[i : i + 1, None], boxes[i : i + 1], height, width)
        values[rows, columns] = part[0].nan_to_num()  # of a box without width, on a pixel's centre
        differ = ours[i] != (values >= threshold).numpy()
        assert (np.abs(values.numpy()[differ] - threshold) <= 1e-4).all()


def random_masks(kind, count, generator):
    noise = torch.rand(count, 28, 28, generator=generator)
    if kind == 'smooth':
        coarse = torch.randn(count, 1, 5, 5, generator=generator) * 4
        return interpolate(coarse, size=28, mode='bilinear')[:, 0].sigmoid()
    others = {'noise': noise, 'binary': (noise > 0.5).float(), 'on the threshold': noise.mul(4).round().div(4)}
    return others[kind] if kind in others else torch.full_like(noise, {'half': 0.5, 'zero': 0.0, 'one': 1.0}[kind])


def random_boxes(count, height, width, generator):
    limits = torch.tensor([width, height, width, height])
    corners = torch.rand(count, 4, generator=generator) * limits * 1.4 - limits * 0.2
    boxes = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)
    return torch.minimum(boxes.clamp(min=0), limits)


KINDS = ['noise', 'smooth', 'binary', 'on the threshold', 'half', 'zero', 'one']


@pytest.mark.parametrize('kind', KINDS)
def test_as_stock_on_random_masks_and_boxes(kind):
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    for _ in range(16):
        height, width = (int(side) for side in torch.randint(17, 330, (2,), generator=generator))
        masks = random_masks(kind, 12, generator)
        boxes = random_boxes(12, height, width, generator)
        assert_as_stock(masks, boxes, height, width)


H, W = 60, 83
BORDERS = [
    *[(0, 0, W, H), (0, 20, 15, 40), (70, 20, W, 40), (20, 0, 40, 9), (20, 50, 40, H)],  # the image and its sides
    *[(W - 5.5, H - 3.25, W, H), (0, 0, 1, H), (W - 1, 0, W, H), (0, 0, W, 1), (0, H - 1, W, H)],  # corner, edges
    *[(10, 10, 20, 20), (10.5, 10.5, 20.5, 20.5)],  # on the edges and centres of pixels
    *[(10.2, 10.3, 10.6, 10.9), (9.9, 9.9, 10.1, 10.1)],  # under a pixel, the second over four of them
    *[(30, 10, 30, 40), (30.5, 10, 30.5, 40), (10, 30, 40, 30), (12, 13, 12, 13), (W, H, W, H)],  # without extent
    (-12.3, -7.1, W + 9.4, H + 20),  # beyond the image
]


@pytest.mark.parametrize('threshold', [0.5, 0.3, 0.0, 1.0])
def test_as_stock_at_every_border(threshold):
    generator = torch.Generator().manual_seed(1)
    masks = torch.cat([random_masks(kind, 1, generator) for kind in KINDS])
    for box in BORDERS:
        assert_as_stock(masks, torch.tensor([box], dtype=torch.float32).repeat(len(masks), 1), H, W, threshold)


def test_a_box_outside_the_image_gives_an_empty_mask_and_no_box_none():
    assert encode_boxed_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), H, W) == []
    box = torch.tensor([[W + 20.0, 5, W + 40, 25]])
    assert encode_boxed_masks(torch.ones(1, 28, 28), box, H, W) == encode_masks(np.zeros((1, H, W), bool))


@pytest.mark.parametrize('shape', [(14, 14), (56, 56), (7, 20), (1, 1)])
def test_any_mask_resolution(shape):
    generator = torch.Generator().manual_seed(2)
    assert_as_stock(torch.rand(20, *shape, generator=generator), random_boxes(20, 150, 211, generator), 150, 211)


def test_memory_is_a_few_percent_of_the_bitmaps():
    generator = torch.Generator().manual_seed(3)
    masks, boxes = random_masks('smooth', 20, generator), random_boxes(20, 1024, 1224, generator)
    encode_boxed_masks(masks, boxes, 1024, 1224)
    tracemalloc.start()
    encode_boxed_masks(masks, boxes, 1024, 1224)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.05 * 20 * 1024 * 1224


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_masks_on_cuda():
    generator = torch.Generator().manual_seed(4)
    for kind in KINDS:
        masks, boxes = random_masks(kind, 30, generator), random_boxes(30, 300, 400, generator)
        assert encode_boxed_masks(masks.cuda(), boxes.cuda(), 300, 400) == encode_boxed_masks(masks, boxes, 300, 400)
        assert encode_masks((masks >= 0.5).cuda()) == encode_masks(masks >= 0.5)


BITMAPS = {
    'noise': lambda rng, h, w: rng.random((h, w)) < 0.5,
    'sparse': lambda rng, h, w: rng.random((h, w)) < 0.01,
    'empty': lambda rng, h, w: np.zeros((h, w), bool),
    'full': lambda rng, h, w: np.ones((h, w), bool),
    'checkerboard': lambda rng, h, w: np.indices((h, w)).sum(0) % 2 == 0,
    'last pixel': lambda rng, h, w: np.arange(h * w).reshape(h, w) == h * w - 1,
    'columns': lambda rng, h, w: np.broadcast_to(np.arange(w) % 3 == 0, (h, w)),
}


@pytest.mark.parametrize('kind', BITMAPS)
@pytest.mark.parametrize('size', [(1, 1), (1, 9), (8, 1), (7, 16), (31, 64), (40, 33), (200, 301)])
def test_bitmaps_equal_pycocotools(kind, size):
    rng = np.random.default_rng(5)
    bitmaps = np.stack([BITMAPS[kind](rng, *size) for _ in range(3)])
    for masks in (bitmaps, bitmaps[:, :, ::-1], bitmaps.transpose(0, 2, 1)):
        codes = encode_mask_results(masks)
        for mask, code in zip(masks, codes, strict=True):
            counts, (height, width) = decode_counts(code['counts'].decode()), mask.shape
            np.testing.assert_array_equal(np.repeat(np.arange(len(counts)) % 2, counts), mask.ravel(order='F'))
            np.testing.assert_array_equal(decode_mask(code), mask)
            assert fits_image(counts, mask.shape, height, width)
            assert not fits_image(counts, (height + 1, width), height, width)
        reference = [(list(r['size']), r['counts'].decode()) for r in codes]
        for same in (masks, masks.astype(np.uint8) * 255, torch.from_numpy(masks.copy())):
            assert [(r['size'], r['counts']) for r in encode_masks(same)] == reference


def test_rle_masks_behave_like_a_tensor_of_masks():
    bitmaps = np.random.default_rng(7).random((4, 9, 13)) < 0.5
    masks = RleMasks(encode_masks(bitmaps), 9, 13)
    assert masks.shape == bitmaps.shape
    np.testing.assert_array_equal(masks.numpy(), bitmaps)
    np.testing.assert_array_equal(masks.astype(bool), bitmaps)
    chosen = [(slice(1, 3), [1, 2]), (np.array([3, 0]), [3, 0]), (torch.tensor([True, False, True, False]), [0, 2])]
    for index, rows in [*chosen, (torch.tensor([2]), [2]), ([], [])]:
        np.testing.assert_array_equal(masks[index].numpy(), bitmaps[np.array(rows, int)])
    assert masks[1] == masks.rles[1]
    np.testing.assert_array_equal(RleMasks.cat([masks[2:], masks[:1]]).numpy(), bitmaps[[2, 3, 0]])


@pytest.mark.parametrize('text', ['P', '12P', 'a\x7f', '\x00', 'é'])
def test_a_broken_code_is_noticed_before_c_code_sees_it(text):
    assert decode_counts(text) == []


def bitmap(runs: Runs, index: int, height: int, width: int) -> np.ndarray:
    pixels = np.zeros(height * width, np.uint8)
    for start, end in runs.switches[runs.starts[index] : runs.starts[index + 1]].reshape(-1, 2):
        pixels[start:end] = 1
    return pixels.reshape(width, height).T


def check(runs: Runs, index: int, rle: dict) -> None:
    expected = mask_api.decode(rle)
    np.testing.assert_array_equal(bitmap(runs, index, *rle['size']), expected)
    assert runs.areas[index] == expected.sum()
    y, x = expected.nonzero()
    box = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
    assert runs.boxes[index].tolist() == box


def random_polygon(rng: np.random.Generator, kind: int, height: int, width: int) -> list[float]:
    corners = int(rng.integers(3, 9))
    points = [
        rng.uniform(0, 1, (corners, 2)) * [width, height],
        rng.uniform(-10, 70, (corners, 2)),
        rng.integers(-3, 60, (corners, 2)),
        rng.integers(0, 4, (corners, 2)) * rng.choice([0.5, 1, 5]),  # corners and edges that lie on each other
    ][kind]
    return [float(value) for value in points.ravel()]


def test_polygons_are_drawn_as_pycocotools_draws_them():
    rng = np.random.default_rng(0)
    for i in range(3000):
        height, width = (int(side) for side in rng.integers(3, 60, 2))
        polygon = random_polygon(rng, i % 4, height, width)
        rle = mask_api.frPyObjects([polygon], height, width)[0]
        check(runs_of([[polygon]], [(height, width)]), 0, rle)


def test_every_form_of_segmentation_is_read():
    square = np.zeros((10, 12), np.uint8, order='F')
    square[2:5, 3:8] = 1
    rle = mask_api.encode(square)
    counts = [3 * 10 + 2, 3, 7, 3, 7, 3, 7, 3, 7, 3, 10 * 12 - 75]
    whole, left, right = ([[x0, 2, x1, 2, x1, 5, x0, 5]] for x0, x1 in ((3, 8), (3, 6), (5, 8)))
    uncompressed, text = {'size': [10, 12], 'counts': counts}, {**rle, 'counts': rle['counts'].decode()}
    forms = [whole, left + right, uncompressed, rle, text]
    runs = runs_of(forms, [(10, 12)] * len(forms))
    for i in range(len(forms)):
        check(runs, i, rle)
    assert [len(part) for part in runs_of([], [])] == [0, 1, 0, 0], 'nothing is no mask'


@pytest.mark.parametrize(
    'counts', [[60], [0, 60], [0, 6, 54], [54, 6], [5, 2, 47, 6], [6, 12, 42], [5, 2, 9, 0, 20, 24], [0, 60, 0]]
)
def test_runs_at_the_edges_of_columns_and_image(counts):
    rle = mask_api.frPyObjects({'size': [6, 10], 'counts': counts}, 6, 10)
    check(runs_of([rle], [(6, 10)]), 0, rle)


def test_shared_pixels_are_those_in_both():
    rng = np.random.default_rng(0)
    for density in rng.uniform(0, 1, 300):
        pair = [np.asfortranarray(rng.random((9, 14)) < share, np.uint8) for share in (density, rng.random())]
        runs = runs_of([mask_api.encode(one) for one in pair], [(9, 14)] * 2)
        assert shared_pixels(runs, 0, runs, 1) == (pair[0] & pair[1]).sum()


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match=r'\[4, 5\] \(height, width\), got \[5, 4\]'):
        runs_of([{'size': [5, 4], 'counts': [20]}], [(4, 5)])


def kept_by_hand(masks: list[dict], scores: np.ndarray, labels: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(masks)), key=lambda i: -scores[i]):
        overlaps = [mask_api.iou([masks[i]], [masks[k]], [0])[0, 0] for k in kept if labels[k] == labels[i]]
        if max(overlaps, default=0) <= iou:
            kept.append(i)
    return sorted(kept)


def test_mask_nms_keeps_the_surest_of_each_class():
    rng = np.random.default_rng(0)
    dropped = 0
    for seed in range(30):
        count = int(rng.integers(0, 12))
        bitmaps = [np.zeros((40, 50), np.uint8, order='F') for _ in range(count)]
        for bitmap in bitmaps[1:]:  # the first one is empty
            y, x = rng.integers(0, 25, 2)
            bitmap[y : y + rng.integers(1, 20), x : x + rng.integers(1, 25)] = 1
        masks = [mask_api.encode(bitmap) for bitmap in bitmaps]
        scores, labels = rng.integers(0, 6, count) / 5, rng.integers(0, 2, count)
        for iou in (0.0, 0.3, 0.7):
            kept = mask_nms(masks, (40, 50), scores, labels, iou).tolist()
            assert kept == kept_by_hand(masks, scores, labels, iou), (seed, iou)
            dropped += count - len(kept)
        doubled = mask_nms(masks * 2, (40, 50), np.tile(scores, 2), np.tile(labels, 2), 1)
        assert len(doubled) == 2 * count, 'with 1, the same mask twice stays'
    assert dropped > 50
    with pytest.raises(InputError, match='mask_nms must be an IoU from 0 to 1, got 50'):
        mask_nms([], (40, 50), [], [], 50)
