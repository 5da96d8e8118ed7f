"""Colours, textures, printed surfaces, and the brush."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from armbench_mmdet.minibench.camera import Camera, Light, Points, Pose

Colour = tuple[int, int, int]

WHITE: Colour = (238, 240, 240)
BLACK: Colour = (26, 24, 24)
CARDBOARD: Colour = (92, 138, 176)
_MIN_CONTRAST = 65  # of an object and the floor, in the channel that differs most

# Weight, hue, saturation, value.
_TOTES = [(30, 0.13, 0.52, 0.52), (18, 0.105, 0.42, 0.62), (10, 0.60, 0.10, 0.42), (12, 0.60, 0.55, 0.50)]
_TOTES += [(8, 0.40, 0.45, 0.36), (7, 0.01, 0.55, 0.46), (10, 0.08, 0.36, 0.62)]
# Weight, hue: what brands print in.
_INKS = ((6, 0.0), (3, 0.05), (4, 0.13), (2, 0.24), (4, 0.36), (3, 0.48), (7, 0.58), (4, 0.63), (2, 0.76), (3, 0.93))


def weighted(rng: np.random.Generator, weights: Sequence[int]) -> int:
    """A random index, by integer weights."""
    pick = int(rng.integers(sum(weights)))
    return next(i for i in range(len(weights)) if pick < sum(weights[: i + 1]))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value, each 0…1."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return int(255 * b), int(255 * g), int(255 * r)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """The colour ``share`` of the way from the first to the second."""
    b, g, r = (int(p + (q - p) * share) for p, q in zip(first, second, strict=True))
    return b, g, r


def contrast(first: Colour, second: Colour) -> int:
    """Largest difference of a channel."""
    return max(abs(p - q) for p, q in zip(first, second, strict=True))


def tote_colour(rng: np.random.Generator) -> Colour:
    """A tote's plastic; yellow and tan are the commonest, as in ARMBench."""
    _, hue, saturation, value = _TOTES[weighted(rng, [row[0] for row in _TOTES])]
    jitter = rng.uniform(-1, 1, 3)
    return hsv(hue + 0.012 * jitter[0], saturation + 0.08 * jitter[1], value + 0.09 * jitter[2])


def print_colour(rng: np.random.Generator) -> Colour:
    """A colour that packaging is printed in: strong, white, black, pastel or cardboard."""
    style, shift, a, b = (float(value) for value in rng.random(4))
    hue = _INKS[weighted(rng, [row[0] for row in _INKS])][1] + 0.05 * (shift - 0.5)
    if style < 0.46:
        return hsv(hue, 0.55 + 0.4 * a, 0.40 + 0.5 * b)
    if style < 0.70:
        return hsv(hue, 0.10 * a, 0.78 + 0.20 * b)
    if style < 0.84:
        return hsv(hue, 0.4 * a, 0.08 + 0.14 * b)
    return hsv(hue, 0.2 + 0.25 * a, 0.60 + 0.3 * b)


def object_colour(rng: np.random.Generator, floor: Colour) -> Colour:
    """A print colour that stands out from the floor, the best of a few otherwise."""
    best = print_colour(rng)
    for _ in range(5):
        if contrast(best, floor) >= _MIN_CONTRAST:
            break
        other = print_colour(rng)
        best = max(best, other, key=lambda colour: contrast(colour, floor))
    return best


def accent_colour(rng: np.random.Generator, base: Colour) -> Colour:
    """A print colour that stands out from ``base``."""
    colours = [print_colour(rng) for _ in range(3)] + [WHITE, BLACK]
    return next((colour for colour in colours if contrast(colour, base) > 80), WHITE)


def toned(base: Colour, rng: np.random.Generator, factor: float = 1.0) -> Colour:
    """The colour, a little brighter or darker than ``factor`` makes it."""
    return lit(base, factor * (0.85 + 0.3 * float(rng.random())))


Pixels = MatLike
"""Eight-bit images: ``(h, w, 3)`` BGR colours or ``(h, w)`` masks and opacities."""

Size = tuple[float, float, float]

_SUBPIXEL_BITS = 4


def fixed(points_px: Points) -> NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point coordinates with four fractional bits."""
    return np.rint(points_px * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def fill_polygon(image: Pixels, points_px: Points, colour: Colour | int) -> None:
    """Fill a polygon, integer arithmetic throughout (so that masks do not depend on the machine)."""
    cv2.fillPoly(image, [fixed(points_px)], colour, cv2.LINE_8, _SUBPIXEL_BITS)


def lit(colour: Colour, shade: float) -> Colour:
    """A colour under a brightness factor, clipped."""
    b, g, r = (int(min(255.0, max(0.0, channel * shade))) for channel in colour)
    return b, g, r


class Brush:
    """One object's patch: what is drawn in local 3-D coordinates lands in ``image`` and ``mask``.

    Textures are as fine as if the object lay on the floor, so that copies look alike wherever they lie; ``floor`` is
    the colour to keep away from.
    """

    def __init__(self, camera: Camera, light: Light, pose: Pose, size: Size, floor: Colour) -> None:
        self.camera, self.light, self.pose, self.size, self.floor = camera, light, pose, size, floor
        length, width, height = size
        corners = np.array(
            [(x * length * 0.56, y * width * 0.56, z * height) for x in (-1, 1) for y in (-1, 1) for z in (0, 1.08)]
        )
        px = camera.project(pose.to_world(corners))
        low, high = np.floor(px.min(axis=0)) - 2, np.ceil(px.max(axis=0)) + 3
        self.left_px, self.top_px = int(low[0]), int(low[1])
        shape = (int(high[1]) - self.top_px, int(high[0]) - self.left_px)
        self.image: Pixels = np.zeros((*shape, 3), np.uint8)
        self.mask: Pixels = np.zeros(shape, np.uint8)
        self.scale_px = camera.scale_px(height / 2)

    def project(self, local: Points) -> Points:
        """Local ``(N, 3)`` points to ``(N, 2)`` patch pixels."""
        return self.camera.project(self.pose.to_world(local)) - (self.left_px, self.top_px)

    def texture_px(self, length: float, width: float) -> tuple[int, int]:
        """Width and height of a texture that covers a face of this size about pixel by pixel."""
        return max(4, round(length * self.scale_px)), max(4, round(width * self.scale_px))

    def px(self, length: float, least: int = 1) -> int:
        """A length in whole pixels."""
        return max(least, round(length * self.scale_px))

    def shade(self, normal: tuple[float, float, float]) -> float:
        """Brightness of a face with this local normal."""
        return self.light.shade(self.pose.direction(normal))

    def sees(self, point: tuple[float, float, float], normal: tuple[float, float, float]) -> bool:
        """Whether a face at this local point with this local normal turns to the camera."""
        return self.camera.sees(self.pose.to_world(np.array([point]))[0], self.pose.direction(normal))

    def light_on_texture(self) -> tuple[float, float]:
        """The light's direction along the local length and width axes."""
        light, u, v = self.light, self.pose.u, self.pose.v
        return light.x * u[0] + light.y * u[1], light.x * v[0] + light.y * v[1]

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

    def fill(self, outline: Points, colour: Colour, shade: float = 1.0) -> None:
        """Fill a local ``(N, 3)`` polygon with one colour."""
        self.fill_px(self.project(outline), lit(colour, shade))

    def fill_px(self, outline_px: Points, colour: Colour) -> None:
        """Fill a polygon of ``(N, 2)`` patch pixels with one colour."""
        fill_polygon(self.image, outline_px, colour)
        fill_polygon(self.mask, outline_px, 255)

    def hull(self, points: Points, colour: Colour, shade: float = 1.0) -> None:
        """Fill the convex hull of local ``(N, 3)`` points' projections with one colour."""
        corners = cv2.convexHull(fixed(self.project(points)))
        cv2.fillConvexPoly(self.image, corners, lit(colour, shade), cv2.LINE_8, _SUBPIXEL_BITS)
        cv2.fillConvexPoly(self.mask, corners, 255, cv2.LINE_8, _SUBPIXEL_BITS)

    def line(self, points: Points, colour: Colour, width_px: int = 1, closed: bool = False) -> None:
        """Draw a decoration along local ``(N, 3)`` points; it does not add to the mask."""
        pixels = fixed(self.project(points))
        cv2.polylines(self.image, [pixels], closed, colour, max(1, width_px), cv2.LINE_AA, _SUBPIXEL_BITS)


Field = MatLike
"""``(h, w) float32`` brightness factors, or glare in 0…1."""


def smooth_noise(rng: np.random.Generator, width_px: int, height_px: int, cells: int) -> Field:
    """``(height, width) float32`` noise in about 0…1 with about ``cells`` bumps along the longer side."""
    longer = max(width_px, height_px)
    shape = (max(2, round(cells * height_px / longer)) + 1, max(2, round(cells * width_px / longer)) + 1)
    return cv2.resize(rng.random(shape, dtype=np.float32), (width_px, height_px), interpolation=cv2.INTER_CUBIC)


def multiply(image: Pixels, field: Field) -> Pixels:
    """An image times a ``(h, w) float32`` field of brightness factors, enlarged to the image's size."""
    rows, columns = image.shape[:2]
    coded = np.clip(field * 128, 0, 255).astype(np.uint8)
    full = cv2.resize(coded, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, cv2.merge([full, full, full]), scale=1 / 128)


def crumple(
    rng: np.random.Generator, width_px: int, height_px: int, light: tuple[float, float], cells: int, depth: float
) -> tuple[Field, Field]:
    """Folds of film: brightness factors around 1 and glare in 0…1, both ``(height, width) float32``.

    ``light`` is its direction along the face's two axes, ``cells`` the number of folds along the longer side.
    """
    w, h = max(6, width_px // 2), max(6, height_px // 2)
    bumps = smooth_noise(rng, w, h, cells)
    ridges = 1 - np.abs(2 * smooth_noise(rng, w, h, 2 * cells) - 1)
    sheet = (bumps + 0.35 * ridges) * (max(w, h) / cells)
    gx = cv2.Sobel(sheet, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    gy = cv2.Sobel(sheet, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    slope = -(gx * np.float32(light[0]) + gy * np.float32(light[1]))
    shade = np.clip(1 + np.float32(0.55 * depth) * slope, 0.35, 1.7)
    glare = np.clip((slope - np.float32(0.45)) * np.float32(1.6 * depth), 0, 1)
    size = (width_px, height_px)
    return cv2.resize(shade, size), cv2.resize(glare, size)


def add_glare(image: Pixels, glare: Field, strength: float = 1.0) -> Pixels:
    """Brighten towards white where glare is, ``(h, w) float32`` in 0…1."""
    coded = np.clip(glare * (255 * strength), 0, 255).astype(np.uint8)
    return cv2.add(image, cv2.merge([coded, coded, coded]))


def spot(width_px: int, height_px: int, x_frac: float, y_frac: float, radius_frac: float) -> Field:
    """A soft round highlight, ``(height, width) float32`` in 0…1; fractions of the width and height."""
    x = (np.arange(width_px, dtype=np.float32) / width_px - np.float32(x_frac)) / np.float32(radius_frac)
    y = (np.arange(height_px, dtype=np.float32) / height_px - np.float32(y_frac)) / np.float32(radius_frac)
    fall_x, fall_y = 1 / (1 + x * x) ** 2, 1 / (1 + y * y) ** 2
    return fall_y[:, None] * fall_x[None, :]


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
