"""Text on pictures: labels that keep out of each other's way, and legends."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LEGEND_TEXT_PX = 15
_MARGIN_PX = 5
_INK = (30, 30, 30)

Box = tuple[int, int, int, int]


class Chip(NamedTuple):
    """A short text on a background of its own.

    Attributes:
        text: What it says.
        colour: BGR of the background; the letters are black or white, whichever stands out.
        box: x, y, width and height in px of what it belongs to.
        at_corner: Whether the box's corners are tried before its centre.
    """

    text: str
    colour: tuple[int, int, int]
    box: Box
    at_corner: bool


def draw_chips(image: np.ndarray, chips: Sequence[Chip], text_px: int) -> np.ndarray:
    """Write the chips on a picture, each near its box and where it covers the least of the earlier ones.

    Args:
        image: (H, W, 3) uint8, BGR.
        chips: In the order in which they are placed.
        text_px: Height of the font.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    if not chips:
        return image
    canvas = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    pen, font = ImageDraw.Draw(canvas), _font(text_px)
    placed: list[Box] = []
    for chip in chips:
        width, height = round(pen.textlength(chip.text, font=font)) + 4, text_px + 3
        box = min(_places(chip, (width, height), canvas.size), key=lambda place: _covered(place, placed))
        placed.append(box)
        red, green, blue = chip.colour[::-1]
        ink = (0, 0, 0) if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else (255, 255, 255)
        pen.rectangle((box[0], box[1], box[0] + width - 1, box[1] + height - 1), fill=(red, green, blue))
        pen.text((box[0] + 2, box[1] + height / 2), chip.text, fill=ink, font=font, anchor='lm')
    return np.asarray(canvas)[..., ::-1]


def draw_legend(width_px: int, title: str, entries: Sequence[tuple[str, tuple[int, int, int], bool]]) -> np.ndarray:
    """A strip with a title on the left and, on the right, coloured squares with what they mean.

    Args:
        width_px: Of the strip; the font shrinks until all fits.
        title: On the left.
        entries: Text, BGR colour, and whether the square is hatched.

    Returns:
        (H, ``width_px``, 3) uint8, BGR, H the same for all.
    """
    strip = Image.new('RGB', (width_px, _LEGEND_TEXT_PX + 2 * _MARGIN_PX), 'white')
    pen = ImageDraw.Draw(strip)
    text_px = _LEGEND_TEXT_PX
    while text_px > 7:
        room = sum(pen.textlength(text, font=_font(text_px)) for text in (title, *(entry[0] for entry in entries)))
        if room + len(entries) * (text_px + 3 * _MARGIN_PX) + 2 * _MARGIN_PX <= width_px:
            break
        text_px -= 1
    font, middle = _font(text_px), strip.height / 2
    pen.text((_MARGIN_PX, middle), title, fill=_INK, font=font, anchor='lm')
    x = width_px - _MARGIN_PX
    for text, colour, is_hatched in reversed(entries):
        x -= round(pen.textlength(text, font=font))
        pen.text((x, middle), text, fill=_INK, font=font, anchor='lm')
        x -= text_px + _MARGIN_PX
        top = round(middle - text_px / 2)
        pen.rectangle((x, top, x + text_px - 1, top + text_px - 1), fill=colour[::-1], outline=_INK)
        for shift in range(4, 2 * text_px, 4) if is_hatched else ():
            low = max(shift - text_px + 1, 0)
            pen.line((x + shift - low, top + low, x + low, top + shift - low), fill=_INK, width=1)
        x -= 2 * _MARGIN_PX
    return np.asarray(strip)[..., ::-1]


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _places(chip: Chip, size: tuple[int, int], canvas: tuple[int, int]) -> list[Box]:
    """Where a chip may go, best first, all of it inside the canvas."""
    x, y, width, height = chip.box
    right, bottom, centre = x + width - size[0], y + height - size[1], x + (width - size[0]) // 2
    middle = y + (height - size[1]) // 2
    places = [(x, y), (right, y), (x, bottom), (right, bottom)]
    central = [(centre, middle), (centre, y), (centre, bottom)]
    return [
        (min(max(left, 0), max(canvas[0] - size[0], 0)), min(max(top, 0), max(canvas[1] - size[1], 0)), *size)
        for left, top in (places + central if chip.at_corner else central + places)
    ]


def _covered(box: Box, others: Sequence[Box]) -> int:
    """How many px² of the other boxes a box covers."""
    if not others:
        return 0
    left, top, width, height = np.array(others).T
    wide = np.minimum(left + width, box[0] + box[2]) - np.maximum(left, box[0])
    high = np.minimum(top + height, box[1] + box[3]) - np.maximum(top, box[1])
    return int((wide.clip(0) * high.clip(0)).sum())
