"""Overlays: which pixels get which colour, at any size."""

import numpy as np
import pytest
from pycocotools import mask as mask_api

from armbench_mmdet.visualization.instances import (
    CORRECT,
    FALSE_POSITIVE,
    FOUND,
    MISSED,
    NOT_COUNTED,
    Instance,
    distinct_colours,
    draw_comparison,
    draw_overlay,
    write_labels,
)

GREY = 90


def instance(
    top: int, left: int, bottom: int, right: int, size: tuple[int, int], name: str = 'object', **more: object
) -> Instance:
    bitmap = np.zeros(size, np.uint8, order='F')
    bitmap[top:bottom, left:right] = 1
    return Instance(mask_api.encode(bitmap), name, **more)  # type: ignore[arg-type]


def changed(picture: np.ndarray) -> np.ndarray:
    return (np.abs(picture.astype(int) - GREY) > 3).any(axis=2)


@pytest.mark.parametrize(
    ('size', 'drawn'),
    [((1000, 1200), (1000, 1200)), ((100, 120), (640, 768)), ((1, 1), (768, 768)), ((3, 900), (3, 900))],
)
def test_an_overlay_is_as_large_as_its_image_and_never_too_small_to_read(
    size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    image = np.full((*size, 3), GREY, np.uint8)
    whole = instance(0, 0, *size, size, score=0.75)
    out = draw_overlay(image, [whole, whole, instance(0, 0, 0, 0, size, score=0.5)])
    assert out.shape == (*drawn, 3)
    assert changed(out).any()
    assert (image == GREY).all(), 'the image itself stays as it is'
    assert not changed(draw_overlay(image, [])).any()


def test_an_object_is_filled_and_a_tote_is_an_outline() -> None:
    size = (800, 1000)
    image = np.full((*size, 3), GREY, np.uint8)
    tote = instance(100, 100, 700, 900, size, 'tote', score=0.9)
    out = changed(draw_overlay(image, [tote]))
    assert out[100:700, 100].mean() > 0.9
    assert not out[300:500, 300:700].any()
    thing = instance(300, 300, 500, 700, size, score=0.8)
    out = changed(draw_overlay(image, [thing, tote]))
    assert out[300:500, 300:700].all()
    assert not out[550:600, 300:700].any()


def test_a_small_instance_is_drawn_over_a_large_one_whatever_the_order() -> None:
    size = (800, 800)
    image = np.full((*size, 3), GREY, np.uint8)
    large, small = instance(0, 0, 800, 800, size), instance(100, 100, 200, 200, size)
    for order in ([large, small], [small, large]):
        out = draw_overlay(image, order)
        own = distinct_colours(2)[order.index(small)]
        assert out[150, 100].tolist() == list(own), 'its outline is not tinted by the other'


def middle(verdict: str, panel: int) -> tuple[np.ndarray, float]:
    """Mean colour inside a large instance of a panel, and how much it varies there."""
    size = (400, 640)
    one = instance(50, 50, 350, 590, size, verdict=verdict)
    image = np.full((*size, 3), GREY, np.uint8)
    out = draw_comparison(image, [] if panel else [one], [one] if panel else [], 'prediction')
    left = out.shape[1] - size[1] if panel else 0
    inside = out[-300:-100, left + 100 : left + 540].astype(float)
    return inside.mean((0, 1)), inside.std((0, 1)).max()


def test_verdicts_have_colours_of_their_own_and_what_is_wrong_is_hatched() -> None:
    found, missed, crowd = (middle(verdict, 0) for verdict in (FOUND, MISSED, NOT_COUNTED))
    correct, false = middle(CORRECT, 1), middle(FALSE_POSITIVE, 1)
    np.testing.assert_allclose(found[0], correct[0])
    for one, other in ((found, missed), (correct, false), (missed, false), (found, crowd)):
        assert np.abs(one[0] - other[0]).max() > 20
    # Without colour, in print: plain against striped.
    assert max(found[1], correct[1], crowd[1]) < 1
    assert min(missed[1], false[1]) > 10


@pytest.mark.parametrize('size', [(2000, 2400), (60, 80), (900, 40)])
def test_a_comparison_has_two_equal_panels_under_a_legend(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), GREY, np.uint8)
    out = draw_comparison(image, [], [instance(0, 0, 9, 9, size, score=0.5, verdict=FALSE_POSITIVE)], 'prediction', 320)
    height, width = np.round(np.array(size) * 320 / max(size))
    assert out.shape[1] - 2 * max(width, 300) in range(1, 20)
    assert out.shape[0] - height in range(10, 60)


def test_labels_keep_out_of_each_others_way_and_inside_the_picture() -> None:
    image = np.full((200, 300, 3), GREY, np.uint8)
    red, blue = (0, 0, 255), (255, 0, 0)
    box = (100, 50, 120, 80)
    both = write_labels(image, [('object 0.91', red, box, False), ('object 0.90', blue, box, False)], 14)
    alone = write_labels(image, [('object 0.91', red, box, False)], 14)
    assert ((both == red).all(2) == (alone == red).all(2)).all(), 'the first one is still whole'
    assert (both == blue).all(2).sum() > 200
    outside = write_labels(image, [('object 0.91', red, (290, 195, 10, 5), True)], 14)
    assert (outside == red).all(2).sum() > 200
