"""Boundary AP against pycocotools, given the overlaps of bands that OpenCV draws."""

import cv2
import numpy as np
import pytest
from coco_random import encode, matching_of, random_dataset, random_mask
from coco_reference import pycocotools_evaluate
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.evaluation.matches import match_table, sized_tables, summary
from armbench_mmdet.evaluation.protocol import cores_of
from armbench_mmdet.masks.runs import runs_of


def core_of(mask: np.ndarray) -> np.ndarray:
    """As in the paper's own code: eroded by a 3×3 square, so many times, with nothing around the image."""
    times = max(round(0.02 * np.hypot(*mask.shape)), 1)
    return cv2.erode(np.pad(mask, 1), np.ones((3, 3), np.uint8), iterations=times)[1:-1, 1:-1]


class BoundaryEval(COCOeval):
    """Overlaps as in the paper, those with crowds as of masks."""

    def computeIoU(self, image_id: int, category_id: int) -> np.ndarray:
        ious = super().computeIoU(image_id, category_id)
        truth, found = self._gts[image_id, category_id], self._dts[image_id, category_id]
        found = sorted(found, key=lambda one: -one['score'])
        bands = [[mask_api.decode(one['segmentation']) for one in shapes] for shapes in (found, truth)]
        bands = [[encode(mask - core_of(mask)) for mask in masks] for masks in bands]
        if len(ious):
            counted = [not one['iscrowd'] for one in truth]
            along = mask_api.iou(*bands, [0] * len(truth))
            ious[:, counted] = np.minimum(ious, along)[:, counted]
        return ious


@pytest.mark.parametrize('seed', range(12))
def test_numbers_are_those_of_the_paper(seed: int) -> None:
    truth, detections = random_dataset(seed)
    masks, reference = (
        pycocotools_evaluate(truth, detections, 'segm', evaluation=one) for one in (COCOeval, BoundaryEval)
    )
    matching = matching_of(truth, detections, is_across=True).of_boundaries()
    ours = [-1 if one is None else one for one in summary(match_table(matching), sized_tables(matching)).values()]
    np.testing.assert_allclose(ours, reference.stats[:9], rtol=0, atol=1e-9)
    assert seed != 1 or ours[0] < masks.stats[0]


def test_cores_of_ragged_masks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(20, 200, 2)
        mask = random_mask(rng, height, width) | random_mask(rng, height, width)
        mask &= ~(random_mask(rng, height, width) & (rng.random((height, width)) < rng.choice([0.001, 1])))
        found = cores_of(runs_of([encode(mask)], [(height, width)]), np.array([[height, width]]))
        drawn = np.zeros(height * width, np.uint8)
        for start, end in found.switches.reshape(-1, 2):
            drawn[start:end] = 1
        np.testing.assert_array_equal(drawn.reshape(width, height).T, core_of(mask.astype(np.uint8)))
        assert found.areas[0] == drawn.sum()
