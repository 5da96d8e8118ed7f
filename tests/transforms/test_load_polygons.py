"""LoadPolygons against mmdet's LoadAnnotations."""

import copy

import numpy as np
import pytest
from mmdet.datasets.transforms import LoadAnnotations
from pycocotools import mask as coco_mask
from transform_samples import disc, instance

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import decode_counts
from armbench_mmdet.transforms import LoadPolygons, Polygons

WIDTH, HEIGHT = 60, 50
SQUARE = [5.0, 5.0, 20.0, 5.0, 20.0, 20.0, 5.0, 20.0]
BITMAP = np.asfortranarray(np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5, np.uint8)
CODE = coco_mask.encode(BITMAP)


MASKS = {
    'one polygon': [SQUARE],
    'two overlapping parts': [SQUARE, disc((18, 18), 9)],
    'a part too short to count': [SQUARE, [1.0, 2.0, 3.0, 4.0]],
    'a part of odd length': [SQUARE, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]],
    'outside the image': [disc((-10, -10), 25)],
    'negative fractions': [[-0.3, -0.3, 7.7, 0.2, 3.1, 9.9]],
    'run-length text': {'size': [HEIGHT, WIDTH], 'counts': CODE['counts'].decode()},
}


@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS.keys())
def test_masks_are_those_of_stock(mask: list | dict) -> None:
    info = {'height': HEIGHT, 'width': WIDTH, 'ori_shape': (HEIGHT, WIDTH)}
    info['instances'] = [instance(mask, 1, [1, 2, 3, 4]), instance([SQUARE], 0)]
    stock = LoadAnnotations(with_bbox=True, with_mask=True).transform(copy.deepcopy(info))
    ours = LoadPolygons().transform(copy.deepcopy(info))
    np.testing.assert_array_equal(ours['gt_masks'].to_ndarray(), stock['gt_masks'].masks)
    np.testing.assert_array_equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)
    for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
        assert ours[key].dtype == stock[key].dtype
        np.testing.assert_array_equal(ours[key], stock[key])


@pytest.mark.parametrize('counts', [CODE['counts'], decode_counts(CODE['counts'].decode())], ids=['bytes', 'numbers'])
def test_run_lengths_stock_does_not_read(counts: bytes | list[int]) -> None:
    info = {'height': HEIGHT, 'width': WIDTH}
    info['instances'] = [instance({'size': [HEIGHT, WIDTH], 'counts': counts}, 1, [0, 0, 5, 5])]
    np.testing.assert_array_equal(LoadPolygons().transform(info)['gt_masks'].to_ndarray()[0], BITMAP)


@pytest.mark.parametrize('mask', [[], [[1.0, 2.0]], [[1.0] * 7]])
def test_an_instance_without_a_polygon_is_ignored(mask: list) -> None:
    info = {'height': HEIGHT, 'width': WIDTH, 'instances': [instance([SQUARE], 0), instance(mask, 1, [0, 0, 5, 5])]}
    before = copy.deepcopy(info)
    out = LoadPolygons().transform(info)
    assert out['gt_ignore_flags'].tolist() == [False, True]
    assert info['instances'] == before['instances'], 'the data set entry must not change'


def test_a_code_of_another_size_is_refused() -> None:
    info = {'height': HEIGHT, 'width': WIDTH + 1, 'img_path': 'a.jpg'}
    info['instances'] = [instance(MASKS['run-length text'], 1, [0, 0, 5, 5])]
    with pytest.raises(InputError, match=r'mask size must be \(50, 61\), got \(50, 60\) \(in a.jpg\)'):
        LoadPolygons().transform(info)


def test_no_annotation() -> None:
    out = LoadPolygons().transform({'height': HEIGHT, 'width': WIDTH})
    assert isinstance(out['gt_masks'], Polygons)
    assert len(out['gt_masks']) == len(out['gt_bboxes']) == len(out['gt_bboxes_labels']) == 0
