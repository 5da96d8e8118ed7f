"""The custom augmentations: image, boxes and masks move together, and nothing odd stops them."""

import copy
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_random_params
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from transform_samples import BACKGROUND, PALETTE, iou, painted_info

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms import (
    LazyRandomFlip,
    LoadPolygons,
    Polygons,
    RenderImage,
    ReplaceBackground,
    ToteCopyPaste,
    ToteCropJitter,
    WarehouseLighting,
    ZoomOutTote,
)

ALL = [ToteCropJitter, ZoomOutTote, ToteCopyPaste, ReplaceBackground, WarehouseLighting]
MOVING = [ToteCropJitter, ZoomOutTote, ToteCopyPaste]
KINDS = ['polygons', 'bitmaps']


def seed_all(seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - the transforms draw from the global state


@pytest.fixture
def painted(tmp_path: Path) -> dict:
    return LoadPolygons()(painted_info(tmp_path / 'painted.png'))


def loaded(painted: dict, kind: str) -> dict:
    """The painted picture with its image and one kind of masks."""
    results = RenderImage()(copy.deepcopy(painted))
    masks = results['gt_masks']
    if kind == 'bitmaps':
        results['gt_masks'] = BitmapMasks(masks.to_ndarray(), masks.height, masks.width)
    return results


def sample(image: np.ndarray, bitmaps: np.ndarray, labels: list[int]) -> dict:
    """A sample made by hand."""
    masks = BitmapMasks(bitmaps, *image.shape[:2])
    return {
        'img': image,
        'img_shape': image.shape[:2],
        'gt_masks': masks,
        'gt_bboxes': masks.get_bboxes('hbox'),
        'gt_bboxes_labels': np.array(labels, np.int64),
        'gt_ignore_flags': np.zeros(len(labels), bool),
    }


def same(first: object, second: object) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, HorizontalBoxes):
        return torch.equal(first.tensor, second.tensor)
    if isinstance(first, PolygonMasks):
        return np.array_equal(first.to_ndarray(), second.to_ndarray())
    return np.array_equal(first, second)


def regions(image: np.ndarray) -> list[np.ndarray]:
    """Where the picture shows each colour of the palette."""
    return [np.abs(image.astype(int) - colour).max(axis=2) < 40 for colour in PALETTE]


def agreement(results: dict, erode_px: int) -> list[float]:
    """For each object, how much of its mask shows one colour, the edges left out."""
    kernel = np.ones((2 * erode_px + 1,) * 2, np.uint8)
    shares = []
    for plane, label in zip(results['gt_masks'].to_ndarray(), results['gt_bboxes_labels'], strict=True):
        inner = cv2.erode(np.asarray(plane, np.uint8), kernel) > 0
        if label == 1 and inner.sum() >= 20:
            shares.append(max(region[inner].mean() for region in regions(results['img'])))
    return shares


@pytest.mark.parametrize('augmentation', ALL)
def test_probability_zero_changes_nothing(augmentation: type[BaseTransform], painted: dict) -> None:
    results = loaded(painted, 'polygons')
    assert same(augmentation(prob=0.0)(copy.deepcopy(results)), results)


@pytest.mark.parametrize('augmentation', ALL)
def test_the_seed_decides(augmentation: type[BaseTransform], painted: dict) -> None:
    transform = augmentation(prob=1.0)
    outputs = []
    for seed in (1, 1, 2):
        seed_all(seed)
        outputs.append(transform(loaded(painted, 'polygons')))
    assert same(outputs[0], outputs[1])
    assert not same(outputs[0], outputs[2])
    with cache_random_params(transform):
        first = transform(loaded(painted, 'polygons'))
        assert same(first, transform(loaded(painted, 'polygons')))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('augmentation', MOVING)
def test_image_boxes_and_masks_move_together(augmentation: type[BaseTransform], kind: str, painted: dict) -> None:
    seen = 0
    for seed in range(6):
        seed_all(seed)
        out = augmentation(prob=1.0)(loaded(painted, kind))
        shape = out['img'].shape[:2]
        bitmaps = np.asarray(out['gt_masks'].to_ndarray())
        assert bitmaps.shape[1:] == shape
        counts = {key: len(out[key]) for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')}
        assert set(counts.values()) == {len(bitmaps)}
        shares = agreement(out, erode_px=3)
        assert all(share > 0.97 for share in shares), shares
        seen += len(shares)
        if augmentation is not ToteCopyPaste:  # nothing is hidden: each region that shows is the mask of an object
            objects = bitmaps[out['gt_bboxes_labels'] == 1]
            shown = [region for region in regions(out['img'])[1:5] if region.sum() > 150]
            assert shown
            assert all(max(iou(region, plane) for plane in objects) > 0.8 for region in shown)
        tight = BitmapMasks(bitmaps.astype(np.uint8), *shape).get_bboxes('hbox').tensor
        assert (out['gt_bboxes'].tensor - tight).abs().max() <= 1.5
    assert seen > 6


def test_crop_jitter_before_and_after_the_image(painted: dict) -> None:
    for seed in range(5):
        seed_all(seed)
        lazy = RenderImage()(ToteCropJitter(prob=1.0)(copy.deepcopy(painted)))
        seed_all(seed)
        eager = ToteCropJitter(prob=1.0)(loaded(painted, 'polygons'))
        np.testing.assert_array_equal(lazy['img'], eager['img'])
        np.testing.assert_array_equal(lazy['gt_masks'].to_ndarray(), eager['gt_masks'].to_ndarray())
        assert torch.equal(lazy['gt_bboxes'].tensor, eager['gt_bboxes'].tensor)
        assert lazy['img_shape'] == eager['img_shape'] == lazy['img'].shape[:2]


def test_zoom_out_hides_what_a_crop_removed(painted: dict) -> None:
    """Polygon parts outside an earlier crop must not reappear in the surround."""
    results = ToteCropJitter(prob=1.0, margin_frac=-0.25, jitter_frac=0.0)(copy.deepcopy(painted))
    results = RenderImage()(LazyRandomFlip(prob=1.0)(results))
    out = ZoomOutTote(prob=1.0, scale_range=(0.5, 0.5))(results)
    tote = out['gt_masks'].to_ndarray()[0]
    scene = np.flatnonzero(tote.any(axis=0))
    assert len(scene) <= results['img'].shape[1] * 0.5 + 1


def test_copy_paste_shows_one_object_several_times(painted: dict) -> None:
    found = []
    for seed in range(12):
        seed_all(seed)
        out = ToteCopyPaste(prob=1.0, max_pastes=4, same_object_prob=1.0)(loaded(painted, 'bitmaps'))
        planes = out['gt_masks'].to_ndarray()
        seen = [[region[plane > 0].mean() for region in regions(out['img'])] for plane in planes[5:]]
        found.append(len({int(np.argmax(shares)) for shares in seen}))
    assert set(found) <= {0, 1}
    assert 1 in found


def test_copy_paste_cuts_and_drops_what_is_covered() -> None:
    """A tote that holds two objects; pastes are larger than they are."""
    image = np.zeros((80, 100, 3), np.uint8)
    bitmaps = np.zeros((3, 80, 100), np.uint8)
    bitmaps[0, 5:75, 5:95] = 1
    bitmaps[1, 20:40, 20:45] = 1
    bitmaps[2, 45:60, 50:70] = 1
    dropped = 0
    for seed in range(25):
        seed_all(seed)
        start = sample(image.copy(), bitmaps.copy(), [0, 1, 1])
        out = ToteCopyPaste(prob=1.0, scale_range=(1.5, 1.5), min_visible_frac=0.5)(start)
        planes = out['gt_masks'].to_ndarray()[out['gt_bboxes_labels'] == 1]
        assert planes.sum(axis=0).max() <= 1, 'objects must not overlap'
        assert out['gt_bboxes_labels'].tolist().count(0) == 1
        assert (out['gt_masks'].to_ndarray()[0] == bitmaps[0]).all(), 'a tote that includes its objects stays whole'
        assert all(plane.sum() >= 0.5 * 15 * 20 * 0.5 for plane in planes)
        assert (planes.max(axis=0) <= bitmaps[0]).all(), 'nothing lies outside the tote'
        dropped += sum((bitmaps[i] & planes.max(axis=0)).sum() > 0 for i in (1, 2)) > 0
    assert dropped


def test_copy_paste_cuts_a_tote_that_excludes_its_objects() -> None:
    bitmaps = np.zeros((2, 60, 60), np.uint8)
    bitmaps[0, 2:58, 2:58] = 1
    bitmaps[1, 20:35, 20:35] = 1
    bitmaps[0] &= 1 - bitmaps[1]
    cut = 0
    for seed in range(8):
        seed_all(seed)
        out = ToteCopyPaste(prob=1.0)(sample(np.zeros((60, 60, 3), np.uint8), bitmaps.copy(), [0, 1]))
        planes = out['gt_masks'].to_ndarray()
        assert planes.sum(axis=0).max() <= 1
        cut += planes[0].sum() < bitmaps[0].sum()
    assert cut


def test_copy_paste_takes_objects_from_another_image(painted: dict) -> None:
    alone = sample(np.full((64, 64, 3), BACKGROUND, np.uint8), np.ones((1, 64, 64), np.uint8), [0])
    assert len(ToteCopyPaste(prob=1.0)(copy.deepcopy(alone))['gt_masks']) == 1
    pasted = 0
    for seed in range(5):
        seed_all(seed)
        mixed = {**copy.deepcopy(alone), 'mix_results': [loaded(painted, 'polygons')]}
        pasted += len(ToteCopyPaste(prob=1.0)(mixed)['gt_masks']) - 1
    assert pasted
    assert ToteCopyPaste().get_indices([None] * 7)[0] in range(7)


@pytest.mark.parametrize('kind', KINDS)
def test_replaced_background_keeps_objects_alone(kind: str, painted: dict) -> None:
    for seed in range(5):
        seed_all(seed)
        before = loaded(painted, kind)
        out = ReplaceBackground(prob=1.0, grey_range=(250, 250), shadow=0.0)(copy.deepcopy(before))
        is_object = before['gt_bboxes_labels'] == 1
        objects = before['gt_masks'].to_ndarray()[is_object]
        assert out['gt_bboxes_labels'].tolist() == [1] * is_object.sum()
        np.testing.assert_array_equal(out['gt_masks'].to_ndarray(), objects)
        assert min(agreement(out, erode_px=3)) > 0.97
        far = cv2.dilate(objects.max(axis=0), np.ones((9, 9), np.uint8)) == 0
        assert out['img'].dtype == np.uint8
        assert before['img'][far].mean() < 150
        assert out['img'][far].mean() > 200, 'a bright surface around them'


def test_lighting_moves_nothing_and_stays_eight_bit(painted: dict) -> None:
    for seed in range(10):
        seed_all(seed)
        results = loaded(painted, 'polygons')
        out = WarehouseLighting(prob=1.0, glare_prob=0.5, blur_prob=0.5)(dict(results))
        assert out['img'].dtype == np.uint8
        assert out['img'].shape == results['img'].shape
        assert (out['img'] != results['img']).any()
        assert all(out[key] is results[key] for key in results if key != 'img')
    floats = dict(results, img=results['img'].astype(np.float32))
    assert WarehouseLighting(prob=1.0)(floats)['img'].dtype == np.float32


ONE_PIXEL = np.zeros((2, 40, 50), np.uint8)
ONE_PIXEL[0, 20, 25] = ONE_PIXEL[1, 10, 10] = 1
ODD = {
    'no instance': (np.zeros((0, 40, 50), np.uint8), []),
    'no object': (np.ones((1, 40, 50), np.uint8), [0]),
    'no tote': (np.ones((1, 40, 50), np.uint8), [1]),
    'one-pixel masks': (ONE_PIXEL, [0, 1]),
    'one-pixel object': (np.stack([np.ones((40, 50), np.uint8), ONE_PIXEL[1]]), [0, 1]),
    'empty masks': (np.zeros((2, 40, 50), np.uint8), [0, 1]),
    'one-pixel image': (np.ones((2, 1, 1), np.uint8), [0, 1]),
    'two totes': (np.ones((3, 40, 50), np.uint8), [0, 0, 1]),
}


@pytest.mark.parametrize('as_polygons', [False, True])
@pytest.mark.parametrize(('bitmaps', 'labels'), ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize('augmentation', ALL)
def test_odd_samples_are_survived(
    augmentation: type[BaseTransform], bitmaps: np.ndarray, labels: list[int], as_polygons: bool
) -> None:
    for seed in range(8):
        seed_all(seed)
        results = sample(np.full((*bitmaps.shape[1:], 3), 90, np.uint8), bitmaps.copy(), labels)
        if as_polygons:
            results['gt_masks'] = Polygons.from_bitmaps(bitmaps)
        out = augmentation(prob=1.0)(results)
        sizes = {len(out[key]) for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')}
        assert len(sizes) == 1
        assert out['gt_masks'].to_ndarray().shape[1:] == out['img'].shape[:2]


@pytest.mark.parametrize('augmentation', ALL)
def test_registered_documented_and_picklable(augmentation: type[BaseTransform]) -> None:
    built = TRANSFORMS.build({'type': augmentation.__name__, 'prob': 0.25})
    assert 'Required Keys' in augmentation.__doc__
    assert 'Modified Keys' in augmentation.__doc__
    assert repr(pickle.loads(pickle.dumps(built))) == repr(built)
    assert 'prob=0.25' in repr(built)


@pytest.mark.parametrize(
    ('augmentation', 'arguments'),
    [
        *[(augmentation, {'prob': 1.5}) for augmentation in ALL],
        (ToteCropJitter, {'jitter_frac': -0.1}),
        (ZoomOutTote, {'scale_range': (0.8, 0.3)}),
        (ZoomOutTote, {'scale_range': (0.5, 1.5)}),
        (ToteCopyPaste, {'min_visible_frac': 2}),
        (ToteCopyPaste, {'scale_range': (0.0, 1.0)}),
        (ReplaceBackground, {'grey_range': (200, 100)}),
        (WarehouseLighting, {'noise_levels': (3,)}),
        (WarehouseLighting, {'blur_length_px': (0, 3)}),
    ],
)
def test_wrong_arguments_are_named(augmentation: type[BaseTransform], arguments: dict) -> None:
    with pytest.raises(InputError, match=f'{next(iter(arguments))} must be'):
        augmentation(**arguments)
