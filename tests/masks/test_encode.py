"""Run lengths against stock pasting, but for pixels on the threshold, and against pycocotools, both ways."""

import tracemalloc

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures.mask import encode_mask_results
from torch.nn.functional import interpolate

from armbench_mmdet.masks.encode import RleMasks, decode_counts, decode_mask, encode_masks, fits_image
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
