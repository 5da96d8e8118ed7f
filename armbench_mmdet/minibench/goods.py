"""The kinds of objects: how big they are, how common, how they are painted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from armbench_mmdet.minibench import packaging, solids
from armbench_mmdet.minibench.paint import Brush, Size

Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        name: What it is.
        weight: How common it is, in relation to the others.
        length: Range of the length in tote lengths.
        width: Range of the width as a share of the length.
        height: Range of the height as a share of the width.
        paint: Draws one on a brush.
        thin: Whether it may lean on a wall.
    """

    name: str
    weight: int
    length: Range
    width: Range
    height: Range
    paint: Callable[[Brush, np.random.Generator], None]
    thin: bool = False

    def sample_size(self, rng: np.random.Generator, scale: float) -> Size:
        """Length, width and height in tote lengths."""
        length, width, height = (float(rng.uniform(*span)) for span in (self.length, self.width, self.height))
        return scale * length, scale * length * width, scale * length * width * height


KINDS: tuple[Kind, ...] = (
    Kind('box', 16, (0.15, 0.32), (0.45, 0.85), (0.25, 0.75), packaging.paint_box),
    Kind('carton', 7, (0.17, 0.34), (0.55, 0.9), (0.3, 0.7), packaging.paint_carton),
    Kind('book', 9, (0.19, 0.32), (0.62, 0.8), (0.08, 0.25), packaging.paint_book, thin=True),
    Kind('bottle', 11, (0.17, 0.32), (0.32, 0.48), (0.9, 1.0), solids.paint_bottle),
    Kind('roll', 8, (0.16, 0.40), (0.22, 0.45), (1.0, 1.0), solids.paint_roll),
    Kind('tube', 7, (0.17, 0.30), (0.26, 0.36), (0.5, 0.8), solids.paint_tube),
    Kind('tool', 5, (0.20, 0.36), (0.16, 0.24), (1.0, 1.0), solids.paint_tool),
    Kind('can', 6, (0.09, 0.14), (1.0, 1.0), (0.7, 1.4), solids.paint_can),
    Kind('jar', 6, (0.09, 0.15), (1.0, 1.0), (0.6, 1.3), solids.paint_jar),
    Kind('tape', 4, (0.10, 0.16), (1.0, 1.0), (0.3, 0.6), solids.paint_tape),
    Kind('ball', 4, (0.09, 0.15), (1.0, 1.0), (1.0, 1.0), solids.paint_ball),
    Kind('multipack', 4, (0.20, 0.28), (0.62, 0.72), (0.4, 0.8), solids.paint_multipack),
    Kind('polybag', 9, (0.20, 0.36), (0.6, 0.9), (0.15, 0.35), packaging.paint_polybag),
    Kind('crisp_bag', 7, (0.18, 0.30), (0.6, 0.8), (0.25, 0.4), packaging.paint_crisp_bag),
    Kind('pouch', 6, (0.17, 0.30), (0.6, 0.8), (0.15, 0.3), packaging.paint_pouch),
    Kind('mailer', 6, (0.20, 0.34), (0.65, 0.85), (0.08, 0.2), packaging.paint_mailer, thin=True),
    Kind('cloth', 5, (0.19, 0.32), (0.6, 0.9), (0.12, 0.3), packaging.paint_cloth),
    Kind('blister', 7, (0.17, 0.30), (0.5, 0.65), (0.12, 0.3), packaging.paint_blister, thin=True),
    Kind('ball_net', 5, (0.28, 0.42), (0.55, 0.7), (0.35, 0.45), packaging.paint_ball_net),
)

_TOTAL_WEIGHT = sum(kind.weight for kind in KINDS)


def sample_kind(rng: np.random.Generator) -> Kind:
    """A kind, the common ones more often."""
    pick = int(rng.integers(_TOTAL_WEIGHT))
    for kind in KINDS:
        pick -= kind.weight
        if pick < 0:
            return kind
    raise RuntimeError('the weights of the kinds do not add up')
