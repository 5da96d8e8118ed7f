"""Masks as runs against pycocotools, pixel by pixel."""

import numpy as np
import pytest
from pycocotools import mask as mask_api

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.runs import Runs, mask_nms, runs_of, shared_pixels


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
