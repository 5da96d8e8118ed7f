"""Printed surfaces: words, small print, barcodes."""

import cv2
import numpy as np

from armbench_mmdet.minibench.paint import BLACK, WHITE, Colour, Pixels, accent_colour, mixed, print_colour

_SYLLABLES = 'NO VA KI RO LU MEN TA SOL PRO DEX ZEN OR BI CO FLEX MAX A'.split(' ')  # noqa: SIM905 - a line, not a page
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in texture pixels."""


def blank(width_px: int, height_px: int, colour: Colour) -> Pixels:
    """A texture of one colour."""
    return np.full((height_px, width_px, 3), colour, np.uint8)


def word(rng: np.random.Generator) -> str:
    """A made-up brand."""
    return ''.join(_SYLLABLES[int(i)] for i in rng.integers(len(_SYLLABLES), size=int(rng.integers(2, 4))))


def rectangle(texture: Pixels, box: Box, colour: Colour) -> None:
    """Fill a rectangle."""
    texture[max(0, box[1]) : max(0, box[3]), max(0, box[0]) : max(0, box[2])] = colour


def part(width_px: int, height_px: int, left: float, top: float, right: float, bottom: float) -> Box:
    """A rectangle from fractions of the size."""
    return int(left * width_px), int(top * height_px), int(right * width_px), int(bottom * height_px)


def write_word(texture: Pixels, box: Box, text: str, colour: Colour, font: int = 0) -> None:
    """Write one word as large as fits the box, in its middle."""
    width, height = box[2] - box[0], box[3] - box[1]
    if width < 8 or height < 4:
        return
    (text_width, text_height), _ = cv2.getTextSize(text, _FONTS[font], 1.0, 1)
    scale = min(width / text_width, height / text_height)
    thickness = max(1, round(scale * 2.2))
    x = box[0] + int((width - text_width * scale) / 2)
    y = box[3] - int((height - text_height * scale) / 2)
    cv2.putText(texture, text, (x, y), _FONTS[font], scale, colour, thickness, cv2.LINE_AA)


def small_print(texture: Pixels, box: Box, colour: Colour, rng: np.random.Generator) -> None:
    """Fill a box with lines of unreadable text."""
    width, height = box[2] - box[0], box[3] - box[1]
    if width < 6 or height < 3:
        return
    count = int(np.clip(height // 4, 1, 9))
    pitch = height / count
    ends = rng.uniform(0.45, 1.0, count)
    for i in range(count):
        y = box[1] + int((i + 0.3) * pitch)
        rectangle(texture, (box[0], y, box[0] + int(width * ends[i]), y + max(1, int(0.4 * pitch))), colour)
    gaps = rng.integers(box[0], box[2], 3 * count)
    for i in range(3 * count):
        y = box[1] + int((i % count + 0.3) * pitch)
        column = texture[max(0, y - 1) : max(0, y - 1) + 1, gaps[i] : gaps[i] + 1]
        if column.size:
            texture[y : y + max(1, int(0.4 * pitch)), gaps[i] : gaps[i] + max(1, width // 40)] = column[0, 0]


def barcode(texture: Pixels, box: Box, rng: np.random.Generator) -> None:
    """A white sticker with black bars and a line of digits."""
    rectangle(texture, box, WHITE)
    width, height = box[2] - box[0], box[3] - box[1]
    if width < 6 or height < 4:
        return
    margin = max(1, width // 10)
    bar = max(1, width // 40)
    x = box[0] + margin
    steps = rng.integers(1, 4, size=200)
    bottom = box[3] - max(1, height // (4 if height > 14 else 9))
    top = box[1] + max(1, height // 9)
    for i in range(0, 200, 2):
        thick = bar * int(steps[i])
        if x + thick > box[2] - margin:
            break
        rectangle(texture, (x, top, x + thick, bottom), BLACK)
        x += thick + bar * int(steps[i + 1])


def sticker(texture: Pixels, rng: np.random.Generator, share: float = 0.34) -> None:
    """A barcode label somewhere on a texture, along its longer side or across."""
    rows, columns = texture.shape[:2]
    longer = max(rows, columns)
    a, b = max(6, int(longer * share)), max(5, int(longer * share * 0.5))
    width, height = (a, b) if rng.random() < 0.65 else (b, a)
    if width >= columns or height >= rows:
        width, height = min(a, columns - 2), min(b, rows - 2)
    x, y = (int(rng.random() * max(1, columns - width)), int(rng.random() * max(1, rows - height)))
    if height > width:
        patch = np.empty((width, height, 3), np.uint8)
        barcode(patch, (0, 0, height, width), rng)
        texture[y : y + height, x : x + width] = patch.transpose(1, 0, 2)
    else:
        barcode(texture, (x, y, x + width, y + height), rng)


def design(rng: np.random.Generator, width_px: int, height_px: int, base: Colour, style: int | None = None) -> Pixels:
    """A package's printed front in one of four layouts, ``(height, width, 3) uint8``; a tall one is drawn lying."""
    if height_px > width_px:
        return np.ascontiguousarray(design(rng, height_px, width_px, base, style).transpose(1, 0, 2)[:, ::-1])
    w, h = width_px, height_px
    texture = blank(w, h, base)
    accent = accent_colour(rng, base)
    second = print_colour(rng)
    ink = WHITE if sum(base) < 380 else BLACK
    style = int(rng.integers(4)) if style is None else style
    text, font = word(rng), int(rng.integers(3))
    if style == 0:
        cut = 0.25 + 0.2 * rng.random()
        rectangle(texture, part(w, h, 0, 0, 1, cut), accent)
        write_word(texture, part(w, h, 0.08, 0.06, 0.92, cut - 0.05), text, base, font)
        small_print(texture, part(w, h, 0.08, cut + 0.12, 0.55, 0.9), ink, rng)
    elif style == 1:
        cv2.circle(texture, (int(0.3 * w), h // 2), int(0.36 * h), accent, -1, cv2.LINE_AA)
        write_word(texture, part(w, h, 0.12, 0.3, 0.9, 0.68), text, ink, font)
    elif style == 2:
        edge = max(1, int(0.06 * h))
        cv2.rectangle(texture, (edge, edge), (w - 1 - edge, h - 1 - edge), accent, max(1, edge // 2))
        write_word(texture, part(w, h, 0.14, 0.22, 0.86, 0.52), text, accent, font)
        small_print(texture, part(w, h, 0.2, 0.62, 0.8, 0.85), ink, rng)
    else:
        rectangle(texture, part(w, h, 0.62, 0, 0.70, 1), accent)
        rectangle(texture, part(w, h, 0.70, 0, 1, 1), second)
        write_word(texture, part(w, h, 0.06, 0.12, 0.58, 0.5), text, ink, font)
        small_print(texture, part(w, h, 0.07, 0.6, 0.55, 0.92), mixed(ink, base, 0.25), rng)
    return texture
