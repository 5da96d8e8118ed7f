"""Colours, textures, printed surfaces, and the brush."""

import colorsys
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from armbench_mmdet.minibench.camera import WORLD, Camera, Light, Points, Pose

Colour = tuple[int, ...]  # blue, green, red, each 0…255
Pixels = MatLike  # eight-bit images: (h, w, 3) BGR colours or (h, w) masks and opacities
Field = MatLike  # (h, w) float32 brightness factors, or glare in 0…1
Size = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of a texture's width and height

WHITE: Colour = (238, 240, 240)
BLACK: Colour = (26, 24, 24)
CARDBOARD: Colour = (92, 138, 176)
_MIN_CONTRAST = 65  # of an object and the floor, in the channel that differs most

# Weight, hue, saturation, value.
_TOTES = [(30, 0.13, 0.52, 0.52), (18, 0.105, 0.42, 0.62), (10, 0.60, 0.10, 0.42), (12, 0.60, 0.55, 0.50)]
_TOTES += [(8, 0.40, 0.45, 0.36), (7, 0.01, 0.55, 0.46), (10, 0.08, 0.36, 0.62)]
# Weight, hue: what brands print in.
_INKS = ((6, 0.0), (3, 0.05), (4, 0.13), (2, 0.24), (4, 0.36), (3, 0.48), (7, 0.58), (4, 0.63), (2, 0.76), (3, 0.93))
# Share up to here, saturation and by how much it varies, value likewise: strong, white, black, pastel or cardboard.
_PRINTS = ((0.46, 0.55, 0.4, 0.4, 0.5), (0.7, 0, 0.1, 0.78, 0.2), (0.84, 0, 0.4, 0.08, 0.14), (1, 0.2, 0.25, 0.6, 0.3))

_SUBPIXEL_BITS = 4
_SYLLABLES = 'NO VA KI RO LU MEN TA SOL PRO DEX ZEN OR BI CO FLEX MAX A'.split(' ')  # noqa: SIM905 - a line, not a page
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


def weighted(rng: np.random.Generator, weights: Sequence[int]) -> int:
    """A random index, by integer weights."""
    return int(np.searchsorted(np.cumsum(weights), rng.integers(sum(weights)), side='right'))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value, each 0…1."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return tuple(int(255 * channel) for channel in reversed(rgb))


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """The colour ``share`` of the way from the first to the second."""
    return tuple(int(p + (q - p) * share) for p, q in zip(first, second, strict=True))


def lit(colour: Colour, shade: float) -> Colour:
    """A colour under a brightness factor, clipped."""
    return tuple(int(min(255.0, max(0.0, channel * shade))) for channel in colour)


def toned(base: Colour, rng: np.random.Generator, factor: float = 1.0) -> Colour:
    """The colour, a little brighter or darker than ``factor`` makes it."""
    return lit(base, factor * (0.85 + 0.3 * float(rng.random())))


def contrast(first: Colour, second: Colour) -> int:
    """Largest difference of a channel."""
    return max(abs(p - q) for p, q in zip(first, second, strict=True))


def tote_colour(rng: np.random.Generator) -> Colour:
    """A tote's plastic; yellow and tan are the commonest, as in ARMBench."""
    _, hue, saturation, value = _TOTES[weighted(rng, [row[0] for row in _TOTES])]
    jitter = rng.uniform(-1, 1, 3)
    return hsv(hue + 0.012 * jitter[0], saturation + 0.08 * jitter[1], value + 0.09 * jitter[2])


def print_colour(rng: np.random.Generator) -> Colour:
    """A colour that packaging is printed in."""
    style, shift, a, b = (float(value) for value in rng.random(4))
    hue = _INKS[weighted(rng, [row[0] for row in _INKS])][1] + 0.05 * (shift - 0.5)
    _, saturation, vary_saturation, value, vary_value = next(row for row in _PRINTS if style < row[0])
    return hsv(hue, saturation + vary_saturation * a, value + vary_value * b)


def object_colour(rng: np.random.Generator, floor: Colour) -> Colour:
    """A print colour that stands out from the floor, the best of a few otherwise."""
    best = print_colour(rng)
    for _ in range(5):
        if contrast(best, floor) >= _MIN_CONTRAST:
            break
        best = max(best, print_colour(rng), key=lambda colour: contrast(colour, floor))
    return best


def accent_colour(rng: np.random.Generator, base: Colour) -> Colour:
    """A print colour that stands out from ``base``."""
    colours = [print_colour(rng) for _ in range(3)] + [WHITE, BLACK]
    return next((colour for colour in colours if contrast(colour, base) > 80), WHITE)


def fixed(points_px: Points) -> NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point coordinates with four fractional bits."""
    return np.rint(points_px * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def fill_polygon(image: Pixels, points_px: Points, colour: Colour | int) -> None:
    """Fill a polygon, integer arithmetic throughout (so that masks do not depend on the machine)."""
    cv2.fillPoly(image, [fixed(points_px)], colour, cv2.LINE_8, _SUBPIXEL_BITS)


class Canvas:
    """A picture ``image``, and the ``mask`` of what was filled in it, both drawn in the coordinates of a pose.

    ``corner_px`` is the place of its left upper pixel in the camera's picture, x first.
    """

    def __init__(
        self, camera: Camera, light: Light, shape: Sequence[int], pose: Pose = WORLD, corner_px: Sequence[int] = (0, 0)
    ) -> None:
        self.camera, self.light, self.pose, self.corner_px = camera, light, pose, corner_px
        self.image: Pixels = np.zeros((*shape, 3), np.uint8)
        self.mask: Pixels = np.zeros(shape, np.uint8)

    def project(self, points: Points) -> Points:
        """Points ``(N, 3)`` to ``(N, 2)`` pixels of the image."""
        return self.camera.project(self.pose.to_world(points)) - self.corner_px

    def fill(self, outline: Points, colour: Colour) -> None:
        """Fill a polygon ``(N, 3)`` with one colour."""
        pixels = self.project(outline)
        fill_polygon(self.image, pixels, colour)
        fill_polygon(self.mask, pixels, 255)

    def line(self, points: Points, colour: Colour, width_px: int = 1, closed: bool = False) -> None:
        """Draw a decoration along points ``(N, 3)``, which leaves the mask as it is."""
        pixels = fixed(self.project(points))
        cv2.polylines(self.image, [pixels], closed, colour, max(1, width_px), cv2.LINE_AA, _SUBPIXEL_BITS)

    def shade(self, normal: Sequence[float]) -> float:
        """Brightness of a face with this normal, relative to one that lies flat in the world."""
        (x, y, z), light = self.pose.direction(normal).tolist(), self.light
        facing = max(0.0, x * light.x + y * light.y + z * light.z)
        return (light.ambient + (1 - light.ambient) * facing) / (light.ambient + (1 - light.ambient) * light.z)


class Brush(Canvas):
    """One object's patch.

    Textures are as fine as if the object lay on the floor, so that copies look alike wherever they lie; ``floor`` is
    the colour to keep away from.
    """

    def __init__(self, camera: Camera, light: Light, pose: Pose, size: Size, floor: Colour) -> None:
        corners = np.array(list(itertools.product((-1, 1), (-1, 1), (0, 1.08)))) * size * (0.56, 0.56, 1)
        px = camera.project(pose.to_world(corners))
        first, last = np.floor(px.min(axis=0)).astype(int) - 2, np.ceil(px.max(axis=0)).astype(int) + 3
        super().__init__(camera, light, (last - first)[::-1].tolist(), pose, first.tolist())
        self.length, self.width, self.height = size
        self.floor, self.scale_px = floor, camera.scale_px(self.height / 2)

    def px(self, length: float, least: int = 1) -> int:
        """A length in whole pixels."""
        return max(least, round(length * self.scale_px))

    def blank(self, colour: Colour, length: float | None = None, width: float | None = None) -> Pixels:
        """A texture of one colour that covers a face about pixel by pixel, by default as large as the object's top."""
        sides = self.width if width is None else width, self.length if length is None else length
        return np.full((*(self.px(side, 4) for side in sides), 3), colour, np.uint8)

    def sees(self, point: Size, normal: Size) -> bool:
        """Whether a face at this local point with this local normal turns to the camera."""
        to_eye = self.camera.eye - self.pose.to_world(np.array([point]))[0]
        return bool((to_eye * self.pose.direction(normal)).sum() > 0)

    def light_on_texture(self) -> tuple[float, float]:
        """The light's direction along the local length and width axes."""
        light, u, v = self.light, self.pose.u, self.pose.v
        return float(light.x * u[0] + light.y * u[1]), float(light.x * v[0] + light.y * v[1])

    def face(self, texture: Pixels, quad: Points, outline: Points | None = None, shade: float = 1.0) -> None:
        """Draw a texture ``(h, w, 3)`` between the ``(4, 3)`` places of its corners, cut to an outline ``(N, 3)``."""
        quad_px = self.project(quad)
        outline_px = quad_px if outline is None else self.project(outline)
        x0, y0 = np.maximum(np.floor(outline_px.min(axis=0)).astype(int) - 1, 0).tolist()
        x1, y1 = np.minimum(np.ceil(outline_px.max(axis=0)).astype(int) + 2, self.mask.shape[::-1]).tolist()
        rows, columns = texture.shape[:2]
        source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32) - np.float32(0.5)
        transform = cv2.getPerspectiveTransform(source, (quad_px - (x0, y0)).astype(np.float32))
        size = (x1 - x0, y1 - y0)
        warped = cv2.warpPerspective(texture, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if shade != 1.0:
            warped = cv2.convertScaleAbs(warped, alpha=shade)
        stencil = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fill_polygon(stencil, outline_px - (x0, y0), 255)
        cv2.copyTo(warped, stencil, self.image[y0:y1, x0:x1])
        cv2.bitwise_or(self.mask[y0:y1, x0:x1], stencil, dst=self.mask[y0:y1, x0:x1])

    def hull(self, points: Points, colour: Colour) -> None:
        """Fill the convex hull of local ``(N, 3)`` points' projections with one colour."""
        corners = cv2.convexHull(fixed(self.project(points)))
        cv2.fillConvexPoly(self.image, corners, colour, cv2.LINE_8, _SUBPIXEL_BITS)
        cv2.fillConvexPoly(self.mask, corners, 255, cv2.LINE_8, _SUBPIXEL_BITS)

    def crumpled(
        self, image: Pixels, rng: np.random.Generator, cells: int, depth: float, glare: float = 1.0, pillow: float = 0.0
    ) -> Pixels:
        """A texture ``(h, w, 3)`` as on film with ``cells`` folds along the longer side, as deep, as glossy, each 0…1.

        What is stuffed like a pillow is up to that much darker at its edges.
        """
        columns, rows = image.shape[1::-1]
        w, h = max(6, columns // 2), max(6, rows // 2)
        bumps = smooth_noise(rng, w, h, cells)
        ridges = 1 - np.abs(2 * smooth_noise(rng, w, h, 2 * cells) - 1)
        sheet = (bumps + 0.35 * ridges) * (max(w, h) / cells)
        slopes = (cv2.Sobel(sheet, cv2.CV_32F, *way, ksize=3, scale=0.125) for way in ((1, 0), (0, 1)))
        slope = -sum(g * np.float32(light) for g, light in zip(slopes, self.light_on_texture(), strict=True))
        shade = cv2.resize(np.clip(1 + np.float32(0.55 * depth) * slope, 0.35, 1.7), (columns, rows))
        shine = cv2.resize(np.clip((slope - np.float32(0.45)) * np.float32(1.6 * depth), 0, 1), (columns, rows))
        if pillow:
            x, y = (np.abs(np.linspace(-1, 1, side, dtype=np.float32)) for side in (columns, rows))
            shade *= 1.06 - np.float32(pillow) * np.maximum(x[None] ** 4, y[:, None] ** 4)
        return add_glare(multiply(image, shade), shine, glare)


def smooth_noise(rng: np.random.Generator, width_px: int, height_px: int, cells: int) -> Field:
    """``(height, width) float32`` noise in about 0…1 with about ``cells`` bumps along the longer side."""
    longer = max(width_px, height_px)
    shape = [max(2, round(cells * side / longer)) + 1 for side in (height_px, width_px)]
    return cv2.resize(rng.random(shape, dtype=np.float32), (width_px, height_px), interpolation=cv2.INTER_CUBIC)


def multiply(image: Pixels, field: Field) -> Pixels:
    """An image times a ``(h, w) float32`` field of brightness factors, enlarged to the image's size."""
    coded = np.clip(field * 128, 0, 255).astype(np.uint8)
    full = cv2.resize(coded, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, cv2.merge([full] * 3), scale=1 / 128)


def add_glare(image: Pixels, glare: Field, strength: float = 1.0) -> Pixels:
    """Brighten towards white where glare is, ``(h, w) float32`` in 0…1."""
    return cv2.add(image, cv2.merge([np.clip(glare * (255 * strength), 0, 255).astype(np.uint8)] * 3))


def add_highlight(image: Pixels, x_frac: float, y_frac: float, radius_frac: float, strength: float) -> Pixels:
    """The image with a soft round highlight; its place and radius are fractions of the width and height."""
    height_px, width_px = image.shape[:2]
    x = (np.arange(width_px, dtype=np.float32) / width_px - np.float32(x_frac)) / np.float32(radius_frac)
    y = (np.arange(height_px, dtype=np.float32) / height_px - np.float32(y_frac)) / np.float32(radius_frac)
    fall_x, fall_y = 1 / (1 + x * x) ** 2, 1 / (1 + y * y) ** 2
    return add_glare(image, fall_y[:, None] * fall_x[None, :], strength)


def word(rng: np.random.Generator) -> str:
    """A made-up brand."""
    return ''.join(_SYLLABLES[int(i)] for i in rng.integers(len(_SYLLABLES), size=int(rng.integers(2, 4))))


def _in_px(texture: Pixels, box: Box) -> tuple[int, int, int, int]:
    """A box's left and top, width and height in pixels."""
    rows, columns = texture.shape[:2]
    left, top = int(box[0] * columns), int(box[1] * rows)
    return left, top, int(box[2] * columns) - left, int(box[3] * rows) - top


def write_word(texture: Pixels, box: Box, text: str, colour: Colour, font: int = 0) -> None:
    """Write one word as large as fits the box, in its middle."""
    left, top, width, height = _in_px(texture, box)
    if width < 8 or height < 4:
        return
    (text_width, text_height), _ = cv2.getTextSize(text, _FONTS[font], 1.0, 1)
    scale = min(width / text_width, height / text_height)
    start = (left + int((width - text_width * scale) / 2), top + height - int((height - text_height * scale) / 2))
    cv2.putText(texture, text, start, _FONTS[font], scale, colour, max(1, round(scale * 2.2)), cv2.LINE_AA)


def small_print(texture: Pixels, box: Box, colour: Colour, rng: np.random.Generator) -> None:
    """Fill a box with lines of unreadable text."""
    left, top, width, height = _in_px(texture, box)
    if width < 6 or height < 3:
        return
    count = min(9, max(1, height // 4))
    pitch = height / count
    thick = max(1, int(0.4 * pitch))
    lines = [top + int((i + 0.3) * pitch) for i in range(count)]
    for y, end in zip(lines, rng.uniform(0.45, 1.0, count), strict=True):
        texture[y : y + thick, left : left + int(width * end)] = colour
    for y, x in zip(lines * 3, rng.integers(left, left + width, 3 * count), strict=True):
        texture[y : y + thick, x : x + max(1, width // 40)] = texture[max(0, y - 1), x]


def sticker(texture: Pixels, rng: np.random.Generator, share: float) -> None:
    """A barcode label somewhere on a texture, along its longer side or across."""
    rows, columns = texture.shape[:2]
    longer = max(rows, columns)
    a, b = max(6, int(longer * share)), max(5, int(longer * share * 0.5))
    width, height = (a, b) if rng.random() < 0.65 else (b, a)
    if width >= columns or height >= rows:
        width, height = min(a, columns - 2), min(b, rows - 2)
    x, y = (int(rng.random() * max(1, columns - width)), int(rng.random() * max(1, rows - height)))
    area = texture[y : y + height, x : x + width]
    if height > width:
        area, width, height = area.transpose(1, 0, 2), height, width
    area[:] = WHITE
    if width >= 6 and height >= 4:
        margin, bar = max(1, width // 10), max(1, width // 40)
        edges = margin + bar * np.append(0, np.cumsum(rng.integers(1, 4, size=200)))
        bars = slice(max(1, height // 9), height - max(1, height // (4 if height > 14 else 9)))
        for start, stop in edges[:200].reshape(-1, 2):
            if stop <= width - margin:
                area[bars, start:stop] = BLACK


def design(rng: np.random.Generator, blank: Pixels, style: int | None = None) -> Pixels:
    """A package's printed front in one of four layouts on a blank texture ``(h, w, 3)``; a tall one is drawn lying."""
    h, w = blank.shape[:2]
    if h > w:
        return np.ascontiguousarray(design(rng, blank.transpose(1, 0, 2), style).transpose(1, 0, 2)[:, ::-1])
    texture = np.ascontiguousarray(blank)
    base = tuple(texture[0, 0].tolist())
    accent = accent_colour(rng, base)
    second = print_colour(rng)
    ink = WHITE if sum(base) < 380 else BLACK
    style = int(rng.integers(4)) if style is None else style
    text, font = word(rng), int(rng.integers(3))
    if style == 0:
        cut = 0.25 + 0.2 * rng.random()
        texture[: int(cut * h)] = accent
        write_word(texture, (0.08, 0.06, 0.92, cut - 0.05), text, base, font)
        small_print(texture, (0.08, cut + 0.12, 0.55, 0.9), ink, rng)
    elif style == 1:
        cv2.circle(texture, (int(0.3 * w), h // 2), int(0.36 * h), accent, -1, cv2.LINE_AA)
        write_word(texture, (0.12, 0.3, 0.9, 0.68), text, ink, font)
    elif style == 2:
        edge = max(1, int(0.06 * h))
        cv2.rectangle(texture, (edge, edge), (w - 1 - edge, h - 1 - edge), accent, max(1, edge // 2))
        write_word(texture, (0.14, 0.22, 0.86, 0.52), text, accent, font)
        small_print(texture, (0.2, 0.62, 0.8, 0.85), ink, rng)
    else:
        texture[:, int(0.62 * w) : int(0.7 * w)] = accent
        texture[:, int(0.7 * w) :] = second
        write_word(texture, (0.06, 0.12, 0.58, 0.5), text, ink, font)
        small_print(texture, (0.07, 0.6, 0.55, 0.92), mixed(ink, base, 0.25), rng)
    return texture
