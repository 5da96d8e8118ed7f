"""Colours, BGR with 0…255 a channel."""

from __future__ import annotations

import colorsys

import numpy as np

Colour = tuple[int, int, int]

WHITE: Colour = (238, 240, 240)
BLACK: Colour = (26, 24, 24)
CARDBOARD: Colour = (92, 138, 176)

# Weight, hue, saturation, value.
_TOTES = (
    (30, 0.13, 0.52, 0.52),
    (18, 0.105, 0.42, 0.62),
    (10, 0.60, 0.10, 0.42),
    (12, 0.60, 0.55, 0.50),
    (8, 0.40, 0.45, 0.36),
    (7, 0.01, 0.55, 0.46),
    (5, 0.06, 0.60, 0.55),
    (5, 0.10, 0.12, 0.68),
)
# Weight, hue: what brands print in.
_INKS = ((6, 0.0), (3, 0.05), (4, 0.13), (2, 0.24), (4, 0.36), (3, 0.48), (7, 0.58), (4, 0.63), (2, 0.76), (3, 0.93))


def _weighted(rng: np.random.Generator, weights: list[int]) -> int:
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
    _, hue, saturation, value = _TOTES[_weighted(rng, [row[0] for row in _TOTES])]
    jitter = rng.uniform(-1, 1, 3)
    return hsv(hue + 0.012 * jitter[0], saturation + 0.08 * jitter[1], value + 0.09 * jitter[2])


def print_colour(rng: np.random.Generator) -> Colour:
    """A colour that packaging is printed in: strong, white, black, pastel or cardboard."""
    style, shift, a, b = (float(value) for value in rng.random(4))
    hue = _INKS[_weighted(rng, [row[0] for row in _INKS])][1] + 0.05 * (shift - 0.5)
    if style < 0.46:
        return hsv(hue, 0.55 + 0.4 * a, 0.40 + 0.5 * b)
    if style < 0.70:
        return hsv(hue, 0.10 * a, 0.78 + 0.20 * b)
    if style < 0.84:
        return hsv(hue, 0.4 * a, 0.08 + 0.14 * b)
    return hsv(hue, 0.2 + 0.25 * a, 0.60 + 0.3 * b)


def object_colour(rng: np.random.Generator, floor: Colour, least_contrast: int) -> Colour:
    """A print colour that differs from the floor by the wanted contrast, the best of a few otherwise."""
    best = print_colour(rng)
    for _ in range(5):
        if contrast(best, floor) >= least_contrast:
            break
        other = print_colour(rng)
        best = max(best, other, key=lambda colour: contrast(colour, floor))
    return best


def accent_colour(rng: np.random.Generator, base: Colour) -> Colour:
    """A print colour that stands out from ``base``."""
    colours = [print_colour(rng) for _ in range(3)] + [WHITE, BLACK]
    usable = [colour for colour in colours if contrast(colour, base) > 80]
    return usable[0] if usable else WHITE


def toned(base: Colour, rng: np.random.Generator, factor: float = 1.0) -> Colour:
    """The colour, a little brighter or darker than ``factor`` makes it."""
    scale = factor * (0.85 + 0.3 * float(rng.random()))
    b, g, r = (int(min(255.0, channel * scale)) for channel in base)
    return b, g, r
