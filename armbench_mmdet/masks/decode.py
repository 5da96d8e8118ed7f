"""Run-length masks as annotation files hold them: checked before any C code reads them."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco_mask


def decode_counts(text: str) -> list[int] | None:
    """Decode COCO's compressed run lengths.

    Five bits a character, least significant first, from character code 48; bit 6 means more follow, the last
    bit of the last one is the sign; from the third on, counts are differences to the count before the last one
    (``rleFrString`` in pycocotools' ``maskApi.c``, which reads past the end of a broken string).

    Args:
        text: The ``counts`` string.

    Returns:
        The run lengths, or None when the string is not a whole code.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def fits_image(counts: list[int] | None, size: tuple[int, int], height: int, width: int) -> bool:
    """Whether run lengths describe a whole mask of exactly this image."""
    return counts is not None and size == (height, width) and sum(counts) == height * width and min(counts) >= 0


def bounding_box(counts: list[int], height: int, width: int) -> tuple[float, float, float, float]:
    """The box ``(x, y, width, height)`` in px around a mask's pixels; zeros for an empty mask."""
    rle = coco_mask.frPyObjects({'counts': counts, 'size': [height, width]}, height, width)
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    return x, y, w, h


def mask_area(segmentation: list[list[float]] | dict[str, Any], height: int, width: int) -> float:
    """The number of pixels of a mask, counted as pycocotools does.

    Args:
        segmentation: Polygons, or a run-length mask that :func:`fits_image`.
        height: Image height in px.
        width: Image width in px.

    Returns:
        Pixels covered by at least one of the polygons, or by the runs.
    """
    if isinstance(segmentation, list):
        return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))))
    counts = segmentation['counts']
    if isinstance(counts, str):
        counts = decode_counts(counts) or []
    return float(sum(counts[1::2]))
