"""The custom augmentations: image, boxes and masks move together, and nothing odd stops them; corrupted photos."""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_random_params
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from transform_samples import BACKGROUND, PALETTE, iou, painted_info

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES, WAREHOUSE, CorruptImage
from armbench_mmdet.transforms.loading import LazyRandomFlip, LoadPolygons, RenderImage
from armbench_mmdet.transforms.polygons import Polygons
from armbench_mmdet.transforms.replace_background import ReplaceBackground
from armbench_mmdet.transforms.tote_copy_paste import ToteCopyPaste
from armbench_mmdet.transforms.tote_crop_jitter import ToteCropJitter
from armbench_mmdet.transforms.warehouse_lighting import WarehouseLighting
from armbench_mmdet.transforms.zoom_out_tote import ZoomOutTote

ALL = [ToteCropJitter, ZoomOutTote, ToteCopyPaste, ReplaceBackground, WarehouseLighting]
PER_INSTANCE = ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')


def seeded(seeds: Iterable[int]) -> Iterator[int]:
    """Each seed once NumPy's global state, which the transforms draw from, has it."""
    for seed in seeds:
        np.random.seed(seed)  # noqa: NPY002
        yield seed


@pytest.fixture
def painted(tmp_path: Path) -> dict:
    return LoadPolygons()(painted_info(tmp_path / 'painted.png'))


def loaded(painted: dict, kind: str = 'polygons') -> dict:
    """The painted picture with its image and one kind of masks."""
    results = RenderImage()(copy.deepcopy(painted))
    masks = results['gt_masks']
    if kind == 'bitmaps':
        results['gt_masks'] = BitmapMasks(masks.to_ndarray(), masks.height, masks.width)
    return results


def sample(bitmaps: np.ndarray, labels: list[int], grey: int = 0) -> dict:
    """A grey picture with the given masks."""
    masks = BitmapMasks(bitmaps.copy(), *bitmaps.shape[1:])
    return {
        'img': np.full((*bitmaps.shape[1:], 3), grey, np.uint8),
        'img_shape': bitmaps.shape[1:],
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


def agreement(results: dict) -> list[float]:
    """For each object, how much of its mask shows one colour, the edges left out."""
    shares = []
    for plane in results['gt_masks'].to_ndarray()[results['gt_bboxes_labels'] == 1]:
        inner = cv2.erode(np.asarray(plane, np.uint8), np.ones((7, 7), np.uint8)) > 0
        if inner.sum() >= 20:
            shares.append(max(region[inner].mean() for region in regions(results['img'])))
    return shares


@pytest.mark.parametrize('augmentation', ALL)
def test_the_seed_decides_and_the_probability(augmentation: type[BaseTransform], painted: dict) -> None:
    transform = augmentation(prob=1.0)
    outputs = [transform(loaded(painted)) for _ in seeded((1, 1, 2))]
    assert same(outputs[0], outputs[1])
    assert not same(outputs[0], outputs[2])
    with cache_random_params(transform):
        assert same(transform(loaded(painted)), transform(loaded(painted)))
    assert same(augmentation(prob=0.0)(loaded(painted)), loaded(painted))


@pytest.mark.parametrize('kind', ['polygons', 'bitmaps'])
@pytest.mark.parametrize('augmentation', [ToteCropJitter, ZoomOutTote, ToteCopyPaste])
def test_image_boxes_and_masks_move_together(augmentation: type[BaseTransform], kind: str, painted: dict) -> None:
    seen = 0
    for _ in seeded(range(6)):
        out = augmentation(prob=1.0)(loaded(painted, kind))
        shape, bitmaps = out['img'].shape[:2], np.asarray(out['gt_masks'].to_ndarray(), np.uint8)
        assert bitmaps.shape[1:] == shape
        assert {len(out[key]) for key in PER_INSTANCE} == {len(bitmaps)}
        shares = agreement(out)
        assert all(share > 0.97 for share in shares), shares
        seen += len(shares)
        if augmentation is not ToteCopyPaste:  # nothing is hidden: each region that shows is the mask of an object
            objects = bitmaps[out['gt_bboxes_labels'] == 1]
            shown = [region for region in regions(out['img'])[1:5] if region.sum() > 150]
            assert shown
            assert all(max(iou(region, plane) for plane in objects) > 0.8 for region in shown)
        tight = BitmapMasks(bitmaps, *shape).get_bboxes('hbox').tensor
        assert (out['gt_bboxes'].tensor - tight).abs().max() <= 1.5
    assert seen > 6


def test_crop_jitter_before_and_after_the_image(painted: dict) -> None:
    crop, render = ToteCropJitter(prob=1.0), RenderImage()
    before = [render(crop(copy.deepcopy(painted))) for _ in seeded(range(5))]
    after = [crop(loaded(painted)) for _ in seeded(range(5))]
    for lazy, eager in zip(before, after, strict=True):
        assert all(same(lazy[key], eager[key]) for key in ('img', 'img_shape', 'gt_masks', 'gt_bboxes'))
        assert lazy['img_shape'] == lazy['img'].shape[:2]


def test_zoom_out_hides_what_a_crop_removed(painted: dict) -> None:
    """Polygon parts outside an earlier crop must not reappear in the surround."""
    results = ToteCropJitter(prob=1.0, margin_frac=-0.25, jitter_frac=0.0)(copy.deepcopy(painted))
    results = RenderImage()(LazyRandomFlip(prob=1.0)(results))
    tote = ZoomOutTote(prob=1.0, scale_range=(0.5, 0.5))(results)['gt_masks'].to_ndarray()[0]
    assert tote.any(axis=0).sum() <= results['img'].shape[1] * 0.5 + 1


def test_copy_paste_shows_one_object_several_times(painted: dict) -> None:
    found = []
    for _ in seeded(range(12)):
        out = ToteCopyPaste(prob=1.0, max_pastes=4, same_object_prob=1.0)(loaded(painted, 'bitmaps'))
        pasted = out['gt_masks'].to_ndarray()[5:]
        found.append({int(np.argmax([region[plane > 0].mean() for region in regions(out['img'])])) for plane in pasted})
    assert {len(colours) for colours in found} == {1}


@pytest.mark.parametrize('includes', [True, False])
def test_copy_paste_cuts_and_drops_what_is_covered(includes: bool) -> None:
    """A tote with two objects, which its mask includes or excludes; pastes are larger than they are."""
    bitmaps = np.zeros((3, 80, 100), np.uint8)
    bitmaps[0, 5:75, 5:95] = bitmaps[1, 20:40, 20:45] = bitmaps[2, 45:60, 50:70] = 1
    outline = bitmaps[0].copy()
    if not includes:
        bitmaps[0] &= 1 - bitmaps[1:].max(axis=0)
    dropped = cut = 0
    for _ in seeded(range(25)):
        out = ToteCopyPaste(prob=1.0, scale_range=(1.5, 1.5), min_visible_frac=0.5)(sample(bitmaps, [0, 1, 1]))
        tote, *objects = out['gt_masks'].to_ndarray()
        assert out['gt_bboxes_labels'].tolist() == [0] + [1] * len(objects)
        assert np.sum(objects, axis=0).max() <= 1, 'objects must not overlap'
        assert min(plane.sum() for plane in objects) >= 0.5 * 15 * 20 * 0.5
        assert (np.max(objects, axis=0) <= outline).all(), 'nothing lies outside the tote'
        assert includes or not (tote & np.max(objects, axis=0)).any()
        cut += (tote != bitmaps[0]).any()
        dropped += sum(not any((plane <= before).all() for plane in objects) for before in bitmaps[1:])
    assert dropped
    assert bool(cut) != includes, 'a tote that includes its objects stays whole'


def test_copy_paste_takes_objects_from_another_image(painted: dict) -> None:
    alone = sample(np.ones((1, 64, 64), np.uint8), [0], BACKGROUND)
    assert len(ToteCopyPaste(prob=1.0)(copy.deepcopy(alone))['gt_masks']) == 1
    pasted = 0
    for _ in seeded(range(5)):
        out = ToteCopyPaste(prob=1.0)({**copy.deepcopy(alone), 'mix_results': [loaded(painted)]})
        pasted += len(out['gt_masks']) - 1
    assert pasted
    assert ToteCopyPaste().get_indices([None] * 7)[0] in range(7)


@pytest.mark.parametrize('kind', ['polygons', 'bitmaps'])
def test_replaced_background_keeps_objects_alone(kind: str, painted: dict) -> None:
    before = loaded(painted, kind)
    is_object = before['gt_bboxes_labels'] == 1
    objects = before['gt_masks'].to_ndarray()[is_object]
    far = cv2.dilate(objects.max(axis=0), np.ones((9, 9), np.uint8)) == 0
    assert before['img'][far].mean() < 150
    for _ in seeded(range(5)):
        out = ReplaceBackground(prob=1.0, grey_range=(250, 250), shadow=0.0)(copy.deepcopy(before))
        assert out['gt_bboxes_labels'].tolist() == [1] * is_object.sum()
        np.testing.assert_array_equal(out['gt_masks'].to_ndarray(), objects)
        assert min(agreement(out)) > 0.97
        assert out['img'].dtype == np.uint8
        assert out['img'][far].mean() > 200, 'a bright surface around them'


@pytest.mark.parametrize('kind', [np.uint8, np.float32])
def test_lighting_moves_nothing_and_keeps_the_type(kind: type, painted: dict) -> None:
    for _ in seeded(range(5)):
        results = loaded(painted)
        results['img'] = results['img'].astype(kind)
        out = WarehouseLighting(prob=1.0, glare_prob=0.5, blur_prob=0.5)(dict(results))
        assert (out['img'].dtype, out['img'].shape) == (kind, results['img'].shape)
        assert (out['img'] != results['img']).any()
        assert all(out[key] is results[key] for key in results if key != 'img')


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
@pytest.mark.parametrize('odd', ODD)
@pytest.mark.parametrize('augmentation', ALL)
def test_odd_samples_are_survived(augmentation: type[BaseTransform], odd: str, as_polygons: bool) -> None:
    bitmaps, labels = ODD[odd]
    for _ in seeded(range(8)):
        results = sample(bitmaps, labels, grey=90)
        if as_polygons:
            results['gt_masks'] = Polygons.from_bitmaps(bitmaps)
        out = augmentation(prob=1.0)(results)
        assert len({len(out[key]) for key in PER_INSTANCE}) == 1
        assert out['gt_masks'].to_ndarray().shape[1:] == out['img'].shape[:2]


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


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    y, x = np.mgrid[:96, :128]
    return np.stack([x * 2, y * 2, (x // 8 + y // 8) % 2 * 200 + 20], axis=-1).astype(np.uint8)


def corrupted(photo: np.ndarray, corruption: str, severity: int, path: str = 'a/1.jpg') -> np.ndarray:
    results = {'img': photo.copy(), 'img_path': path}
    return CorruptImage(corruption, severity).transform(results)['img']


@pytest.mark.parametrize('corruption', CORRUPTIONS)
def test_corruption(photo: np.ndarray, corruption: str) -> None:
    assert np.array_equal(corrupted(photo, corruption, 0), photo)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    changes = []
    for severity in SEVERITIES:
        image = corrupted(photo, corruption, severity)
        assert (image.shape, image.dtype) == (photo.shape, photo.dtype)
        assert np.array_equal(image, corrupted(photo, corruption, severity, path='elsewhere/1.jpg'))
        changes.append(np.abs(image.astype(float) - photo).mean())
    assert min(changes) > 0.5
    assert corruption not in WAREHOUSE or changes == sorted(changes)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    is_drawn = corruption in ('gaussian_noise', 'arm_motion')  # otherwise for another photo
    assert not is_drawn or not np.array_equal(image, corrupted(photo, corruption, severity, path='2.jpg'))


@pytest.mark.parametrize(('corruption', 'severity'), [('rain', 1), ('fog', 6), ('fog', -1)])
def test_unknown_ones_are_refused(corruption: str, severity: int) -> None:
    with pytest.raises(InputError, match='must be'):
        CorruptImage(corruption, severity)
