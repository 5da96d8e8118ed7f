"""Kinds of objects, and where they lie: in a tote at random, stacked, in contact, at walls; or copies of one."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench import objects
from armbench_mmdet.minibench.camera import Pose, cos_sin
from armbench_mmdet.minibench.paint import Brush, Size, weighted

Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """A kind of object, with ranges of its length, of width / length and of height / width."""

    name: str
    weight: int
    length: Range
    width: Range
    height: Range
    paint: Callable[[Brush, np.random.Generator], None]

    def sample_size(self, rng: np.random.Generator, scale: float) -> Size:
        """Length, width and height in tote lengths."""
        length, width, height = (float(rng.uniform(*span)) for span in (self.length, self.width, self.height))
        return scale * length, scale * length * width, scale * length * width * height


KINDS: tuple[Kind, ...] = (
    Kind('box', 16, (0.15, 0.32), (0.45, 0.85), (0.25, 0.75), objects.paint_box),
    Kind('carton', 7, (0.17, 0.34), (0.55, 0.9), (0.3, 0.7), objects.paint_carton),
    Kind('book', 9, (0.19, 0.32), (0.62, 0.8), (0.08, 0.25), objects.paint_book),
    Kind('bottle', 12, (0.17, 0.32), (0.32, 0.48), (0.9, 1.0), objects.paint_bottle),
    Kind('roll', 9, (0.16, 0.40), (0.22, 0.45), (1.0, 1.0), objects.paint_roll),
    Kind('tube', 8, (0.17, 0.30), (0.26, 0.36), (0.5, 0.8), objects.paint_tube),
    Kind('can', 9, (0.09, 0.14), (1.0, 1.0), (0.7, 1.4), objects.paint_can),
    Kind('tape', 6, (0.10, 0.16), (1.0, 1.0), (0.3, 0.6), objects.paint_tape),
    Kind('ball', 5, (0.09, 0.15), (1.0, 1.0), (1.0, 1.0), objects.paint_ball),
    Kind('polybag', 12, (0.20, 0.36), (0.6, 0.9), (0.15, 0.35), objects.paint_polybag),
    Kind('crisp_bag', 10, (0.18, 0.30), (0.6, 0.8), (0.25, 0.4), objects.paint_crisp_bag),
    Kind('mailer', 9, (0.20, 0.34), (0.65, 0.85), (0.08, 0.2), objects.paint_mailer),
    Kind('blister', 8, (0.17, 0.30), (0.5, 0.65), (0.12, 0.3), objects.paint_blister),
    Kind('ball_net', 5, (0.28, 0.42), (0.55, 0.7), (0.35, 0.45), objects.paint_ball_net),
)


def _sample_kind(rng: np.random.Generator) -> Kind:
    return KINDS[weighted(rng, [kind.weight for kind in KINDS])]


_CELLS_PER_LENGTH = 128


@dataclass(frozen=True)
class Spot:
    """A candidate place of an object: the middle and direction of its footprint, and its length and width."""

    x: float
    y: float
    turn: tuple[float, float]
    length: float
    width: float


class Ground:
    """What lies where, on a coarse grid over the tote's floor."""

    def __init__(self, half_x: float, half_y: float) -> None:
        self.half_x, self.half_y = half_x, half_y
        shape = (int(2 * half_y * _CELLS_PER_LENGTH) + 1, int(2 * half_x * _CELLS_PER_LENGTH) + 1)
        self.owner: NDArray[np.int16] = np.full(shape, -1, np.int16)
        self.top = np.zeros(shape)

    def cells(self, spot: Spot, along: tuple[float, float] = (-0.5, 0.5)) -> NDArray[np.bool_]:
        """Grid cells under a footprint, or under a stretch of its length."""
        a, b = np.array(along), 0.5
        (c, s), corners = spot.turn, np.array([(a[0], -b), (a[1], -b), (a[1], b), (a[0], b)])
        u, v = (corners * (spot.length, spot.width) * 0.96).T
        x, y = spot.x + c * u - s * v + self.half_x, spot.y + s * u + c * v + self.half_y
        stencil = np.zeros(self.owner.shape, np.uint8)
        cv2.fillConvexPoly(stencil, np.rint(np.column_stack([x, y]) * _CELLS_PER_LENGTH).astype(np.int32), 1)
        return stencil.view(bool)

    def height(self, spot: Spot, along: tuple[float, float] = (-0.5, 0.5)) -> float:
        """Height of the highest thing under a footprint, or under a stretch of its length."""
        return float(self.top[self.cells(spot, along)].max(initial=0.0))

    def confined(self, x: float, y: float, turn: tuple[float, float], size: Size) -> Spot:
        """A spot of an object, moved until it lies within the floor (or in its middle if it is too large)."""
        c, s = abs(turn[0]), abs(turn[1])
        room_x = max(0.0, self.half_x - (c * size[0] + s * size[1]) / 2)
        room_y = max(0.0, self.half_y - (s * size[0] + c * size[1]) / 2)
        return Spot(min(room_x, max(-room_x, x)), min(room_y, max(-room_y, y)), turn, size[0], size[1])


_COUNT_WEIGHTS = (3, 1, 2, 3, 5, 7, 9, 10, 10, 9, 8, 7, 6, 5, 4, 3, 2, 2, 1, 1, 1)
"""How common totes of 0, 1, 2, … objects are."""

_STACK_PROB, _STACK_OVERLAP_FRAC = 0.14, (0.12, 0.40)  # laid across another, and with which share of the footprint
_CONTACT_PROB, _WALL_PROB = 0.18, 0.18  # pushed against another, or a wall

_TRIALS = 12
_MAX_SLOPE = 0.45


@dataclass(frozen=True)
class Placed:
    """One object where it lies, the seed of its looks (copies share it), and the numbers of those it lies on."""

    kind: Kind
    size: Size
    pose: Pose
    look_seed: int
    supports: set[int]


def _random_spot(rng: np.random.Generator, ground: Ground, size: Size) -> Spot:
    x, y, angle = rng.uniform(-1, 1, 3)
    return ground.confined(x * ground.half_x, y * ground.half_y, cos_sin(math.pi * angle), size)


def _wall_spot(rng: np.random.Generator, ground: Ground, size: Size) -> Spot:
    side = int(rng.integers(4))
    place = float(rng.uniform(-1, 1))
    turn = cos_sin(math.pi / 2 * int(rng.integers(4)) + float(rng.uniform(-0.04, 0.04)))
    x, y = ((-1.0, place), (1.0, place), (place, -1.0), (place, 1.0))[side]
    return ground.confined(x * ground.half_x, y * ground.half_y, turn, size)


def _contact_spot(rng: np.random.Generator, ground: Ground, size: Size, other: Placed) -> Spot:
    """Side by side with another object, aligned with it."""
    is_turned, side = bool(rng.integers(2)), int(rng.integers(4))
    slide = float(rng.uniform(-0.5, 0.5))
    (x, y, _), u = other.pose.origin.tolist(), other.pose.u.tolist()
    flat = math.sqrt(max(1e-9, u[0] ** 2 + u[1] ** 2))
    c, s = u[0] / flat, u[1] / flat
    own = (size[1], size[0]) if is_turned else (size[0], size[1])
    beside = [(1 if side % 2 else -1) * (theirs + mine) / 2 for theirs, mine in zip(other.size, own, strict=False)]
    a, b = (beside[0], slide * other.size[1]) if side < 2 else (slide * other.size[0], beside[1])
    return ground.confined(x + c * a - s * b, y + s * a + c * b, (-s, c) if is_turned else (c, s), size)


def _choose(rng: np.random.Generator, ground: Ground, size: Size, placed: list[Placed], rim: float) -> Spot:
    """The best of some random spots: on another object if that was drawn, else where it is free."""
    stack, contact, wall = rng.random(3)
    target = float(rng.uniform(*_STACK_OVERLAP_FRAC)) if placed and stack < _STACK_PROB else 0.0
    spots: list[tuple[float, Spot]] = []
    while len(spots) < _TRIALS and (not spots or spots[-1][0] >= 0.02):
        if target == 0.0 and wall < _WALL_PROB:
            spot = _wall_spot(rng, ground, size)
        elif target == 0.0 and placed and contact < _CONTACT_PROB:
            spot = _contact_spot(rng, ground, size, placed[int(rng.integers(len(placed)))])
        else:
            spot = _random_spot(rng, ground, size)
        cells = ground.cells(spot)
        overlap = np.count_nonzero(ground.owner[cells] >= 0) / max(1, np.count_nonzero(cells))
        is_too_high = ground.top[cells].max(initial=0.0) + size[2] > rim
        spots.append((abs(overlap - target) + 2.0 * is_too_high, spot))
    return min(spots, key=lambda costed: costed[0])[1]


def _lay(ground: Ground, spot: Spot, kind: Kind, size: Size, index: int, look_seed: int) -> Placed:
    """Put an object down on whatever is under the two ends of its length."""
    low, high, middle = (ground.height(spot, along) for along in ((-0.5, -0.1), (0.1, 0.5), (-0.15, 0.15)))
    slope = max(-_MAX_SLOPE, min(_MAX_SLOPE, (high - low) / (0.8 * spot.length)))
    z = max((low + high) / 2, middle * 0.9)
    cells = ground.cells(spot)
    below = set(ground.owner[cells].tolist()) - {-1}
    ground.owner[cells], ground.top[cells] = index, z + size[2]
    return Placed(kind, size, Pose.resting(spot.x, spot.y, z, spot.turn, slope), look_seed, below)


def scatter(rng: np.random.Generator, ground: Ground, rim: float) -> list[Placed]:
    """A mixed tote: objects in the order in which they were put in."""
    count = weighted(rng, _COUNT_WEIGHTS)
    crowd = max(0.74, min(1.0, math.sqrt(7 / max(count, 1))))
    placed: list[Placed] = []
    for index in range(count):
        kind = _sample_kind(rng)
        size = kind.sample_size(rng, crowd)
        spot = _choose(rng, ground, size, placed, rim)
        placed.append(_lay(ground, spot, kind, size, index, int(rng.integers(2**62))))
    return placed


def copies(rng: np.random.Generator, ground: Ground, cells: tuple[int, int] | None) -> list[Placed]:
    """A few small copies of one object, none on another: anywhere, some side by side, or one a compartment (x, y)."""
    kind, look_seed = _sample_kind(rng), int(rng.integers(2**62))
    size = kind.sample_size(rng, float(rng.uniform(0.55, 0.9)))
    placed: list[Placed] = []
    if cells is None:
        for _ in range(1 + int(rng.integers(1, 8))):
            for _ in range(_TRIALS):
                beside = placed and rng.random() < 0.5
                spot = _contact_spot(rng, ground, size, placed[-1]) if beside else _random_spot(rng, ground, size)
                if not (ground.owner[ground.cells(spot)] >= 0).any():
                    placed.append(_lay(ground, spot, kind, size, len(placed), look_seed))
                    break
        return placed
    pitch = 2 * ground.half_x / cells[0], 2 * ground.half_y / cells[1]
    scale = min(1.0, 0.85 * min(pitch) / max(size[:2]))
    size = (scale * size[0], scale * size[1], scale * size[2])
    for place in rng.permutation(cells[0] * cells[1])[: 1 + int(rng.integers(2, 9))].tolist():
        x = (place % cells[0] + 0.5) * pitch[0] - ground.half_x
        y = (place // cells[0] + 0.5) * pitch[1] - ground.half_y
        spot = Spot(x, y, cos_sin(math.pi * float(rng.random())), size[0], size[1])
        placed.append(_lay(ground, spot, kind, size, len(placed), look_seed))
    return placed


def painting_order(placed: list[Placed], foot: tuple[float, ...]) -> list[int]:
    """Indices from the first to paint to the last: what supports comes before what lies on it, else the farther
    from the point under the camera comes first, as its nearer neighbours stand before it.
    """
    todo = sorted(range(len(placed)), key=lambda i: -math.dist(placed[i].pose.origin[:2], foot))
    order: list[int] = []
    while todo:
        order.append(next(i for i in todo if placed[i].supports <= set(order)))
        todo.remove(order[-1])
    return order
