"""Overlays, comparisons and contact sheets: which pixels get which colour, at any size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from armbench_mmdet import visualization as drawing

REPO = Path(__file__).resolve().parents[1]
GREY = 90


def picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def instance(top, left, bottom, right, size: tuple[int, int], name='object', **more) -> drawing.Instance:
    bitmap = np.zeros(size, np.uint8, order='F')
    bitmap[top:bottom, left:right] = 1
    return drawing.Instance(mask_api.encode(bitmap), name, **more)


def changed(picture: np.ndarray) -> np.ndarray:
    return (np.abs(picture.astype(int) - GREY) > 3).any(axis=2)


@pytest.mark.parametrize(
    ('size', 'drawn'),
    [((1000, 1200), (1000, 1200)), ((100, 120), (640, 768)), ((1, 1), (768, 768)), ((3, 900), (3, 900))],
)
def test_an_overlay_is_as_large_as_its_image_and_never_too_small_to_read(size, drawn) -> None:
    image = picture(*size)
    whole = instance(0, 0, *size, size, score=0.75)
    out = drawing.draw_overlay(image, [whole, whole, instance(0, 0, 0, 0, size, score=0.5)])
    assert out.shape == (*drawn, 3)
    assert changed(out).any()
    assert (image == GREY).all(), 'the image itself stays as it is'
    assert not changed(drawing.draw_overlay(image, [])).any()


def test_an_object_is_filled_over_a_larger_one_and_a_tote_is_an_outline() -> None:
    size = (800, 1000)
    tote = instance(100, 100, 700, 900, size, 'tote', score=0.9)
    thing = instance(300, 300, 500, 700, size, box=(250, 250, 750, 550))
    large = instance(200, 200, 650, 850, size)
    out = changed(drawing.draw_overlay(picture(*size), [thing, tote]))
    assert out[300:500, 300:700].all()
    assert out[250, 250:750].all(), 'its box is drawn'
    assert out[100:700, 100].mean() > 0.9
    assert not out[560:600, 300:700].any(), 'a tote is not filled'
    for order in ([large, thing], [thing, large]):
        own = drawing.distinct_colours(2)[order.index(thing)]
        assert drawing.draw_overlay(picture(*size), order)[400, 300].tolist() == [*own], 'not tinted by the larger'


def middle(verdict: str, panel: int) -> tuple[np.ndarray, float]:
    """Mean colour inside a large instance of a panel, and how much it varies there."""
    size = (400, 640)
    one = instance(50, 50, 350, 590, size, verdict=verdict)
    out = drawing.draw_comparison(picture(*size), [] if panel else [one], [one] if panel else [], 'prediction')
    left = out.shape[1] - size[1] if panel else 0
    inside = out[-300:-100, left + 100 : left + 540].astype(float)
    return inside.mean((0, 1)), inside.std((0, 1)).max()


def test_verdicts_have_colours_of_their_own_and_what_is_wrong_is_hatched() -> None:
    found, missed, crowd = (middle(verdict, 0) for verdict in ('found', 'missed', 'not counted'))
    correct, false = middle('correct', 1), middle('false positive', 1)
    np.testing.assert_allclose(found[0], correct[0])
    for one, other in ((found, missed), (correct, false), (missed, false), (found, crowd)):
        assert np.abs(one[0] - other[0]).max() > 20
    # Without colour, in print: plain against striped.
    assert max(found[1], correct[1], crowd[1]) < 1
    assert min(missed[1], false[1]) > 10


@pytest.mark.parametrize('size', [(2000, 2400), (60, 80), (900, 40)])
def test_a_comparison_has_two_equal_panels_under_a_legend(size: tuple[int, int]) -> None:
    wrong = instance(0, 0, 9, 9, size, score=0.5, verdict='false positive')
    out = drawing.draw_comparison(picture(*size), [], [wrong], 'prediction', 320)
    height, width = np.round(np.array(size) * 320 / max(size))
    assert out.shape[1] - 2 * max(width, 300) in range(1, 20)
    assert out.shape[0] - height in range(10, 60)


def test_labels_keep_out_of_each_others_way_and_inside_the_picture() -> None:
    image, red, blue, box = picture(200, 300), (0, 0, 255), (255, 0, 0), (100, 50, 120, 80)
    labels = [('object 0.91', red, box, False), ('object 0.90', blue, box, False)]
    both, alone = drawing.write_labels(image, labels, 14), drawing.write_labels(image, labels[:1], 14)
    assert ((both == red).all(2) == (alone == red).all(2)).all(), 'the first one is still whole'
    assert (both == blue).all(2).sum() > 200
    outside = drawing.write_labels(image, [('object 0.91', red, (290, 195, 10, 5), True)], 14)
    assert (outside == red).all(2).sum() > 200


def test_sheet_holds_pictures_of_any_size() -> None:
    cells = [picture(height, width) for height, width in ((10, 40), (300, 20), (64, 64), (1, 1))]
    sheet = drawing.make_sheet(cells, ['a', 'b', 'c', 'd'], columns=3, cell_px=64)
    assert sheet.shape[1] == 3 * 70 + 6
    assert ((sheet == GREY).all(axis=2)).sum() >= 64 * 16 + 64 * 4 + 64 * 64 + 64 * 64


@pytest.mark.parametrize(
    ('arguments', 'name', 'columns', 'rows'),
    [
        (('--num', 3, '--columns', 2), 'new/sheet.png', 2, 2),
        (('--augmentations', '--columns', 2), 'sheet.jpg', 2, 1 + len(drawing.AUGMENTATIONS)),
        (('--num', 1), 'sheet.txt', 0, 0),
    ],
)
def test_the_tool_draws_samples_and_augmentations(tool, arguments, name, columns, rows, minibench_root, tmp_path):
    config = REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
    options = ('--data-root', minibench_root, '--cell-px', 100, '--out', tmp_path / name, *arguments)
    status, _, err = tool('browse_data.py', config, *options)
    assert (status, 'must end in .png' in err) == ((0, False) if rows else (2, True))
    if rows:
        height, width, _ = cv2.imread(str(tmp_path / name)).shape
        assert (height // 100, width) == (rows, columns * 106 + 6)
