"""Layouts of objects: in a tote at random, stacked, in contact, at walls; or copies of one."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench.camera import Pose, cos_sin
from armbench_mmdet.minibench.objects import KINDS, Kind
from armbench_mmdet.minibench.paint import Size, weighted

_KIND_WEIGHTS = [kind.weight for kind in KINDS]
_COUNT_WEIGHTS = (3, 1, 2, 3, 5, 7, 9, 10, 10, 9, 8, 7, 6, 5, 4, 3, 2, 2, 1, 1, 1)
"""How common totes of 0, 1, 2, … objects are."""

_STACK_PROB, _STACK_OVERLAP_FRAC = 0.14, (0.12, 0.40)  # laid across another, and with which share of the footprint
_CONTACT_PROB, _WALL_PROB = 0.18, 0.18  # pushed against another, or a wall

_TRIALS = 12
_MAX_SLOPE = 0.45
_CELLS_PER_LENGTH = 128


class Spot(NamedTuple):
    """A candidate place of an object: the middle and direction of its footprint."""

    x: float
    y: float
    turn: tuple[float, float]
    size: Size


class Placed(NamedTuple):
    """One object where it lies, the seed of its looks (copies share it), and the numbers of those it lies on."""

    kind: Kind
    size: Size
    pose: Pose
    look_seed: int
    supports: set[int]


class Ground:
    """What lies where, on a coarse grid over the tote's floor."""

    def __init__(self, half_x: float, half_y: float) -> None:
        self.half_x, self.half_y = half_x, half_y
        shape = (int(2 * half_y * _CELLS_PER_LENGTH) + 1, int(2 * half_x * _CELLS_PER_LENGTH) + 1)
        self.owner: NDArray[np.int16] = np.full(shape, -1, np.int16)
        self.top = np.zeros(shape)

    def cells(self, spot: Spot, along: tuple[float, float] = (-0.5, 0.5)) -> NDArray[np.bool_]:
        """Grid cells under a footprint, or under a stretch of its length."""
        (c, s), (a, b) = spot.turn, along
        u, v = (np.array([(a, -0.5), (b, -0.5), (b, 0.5), (a, 0.5)]) * spot.size[:2] * 0.96).T
        x, y = spot.x + c * u - s * v + self.half_x, spot.y + s * u + c * v + self.half_y
        stencil = np.zeros(self.owner.shape, np.uint8)
        cv2.fillConvexPoly(stencil, np.rint(np.column_stack([x, y]) * _CELLS_PER_LENGTH).astype(np.int32), 1)
        return stencil.view(bool)

    def height(self, cells: NDArray[np.bool_]) -> float:
        """Height of the highest thing in some cells."""
        return float(self.top[cells].max(initial=0.0))

    def confined(self, x: float, y: float, turn: tuple[float, float], size: Size) -> Spot:
        """A spot of an object, moved until it lies within the floor (or in its middle if it is too large)."""
        c, s = abs(turn[0]), abs(turn[1])
        room_x = max(0.0, self.half_x - (c * size[0] + s * size[1]) / 2)
        room_y = max(0.0, self.half_y - (s * size[0] + c * size[1]) / 2)
        return Spot(min(room_x, max(-room_x, x)), min(room_y, max(-room_y, y)), turn, size)

    def random_spot(self, rng: np.random.Generator, size: Size) -> Spot:
        """Anywhere."""
        x, y, angle = rng.uniform(-1, 1, 3)
        return self.confined(x * self.half_x, y * self.half_y, cos_sin(math.pi * angle), size)

    def wall_spot(self, rng: np.random.Generator, size: Size) -> Spot:
        """At a wall, about parallel to it."""
        side, place = int(rng.integers(4)), float(rng.uniform(-1, 1))
        turn = cos_sin(math.pi / 2 * int(rng.integers(4)) + float(rng.uniform(-0.04, 0.04)))
        x, y = ((-1.0, place), (1.0, place), (place, -1.0), (place, 1.0))[side]
        return self.confined(x * self.half_x, y * self.half_y, turn, size)

    def contact_spot(self, rng: np.random.Generator, size: Size, other: Placed) -> Spot:
        """Side by side with another object, aligned with it."""
        is_turned, side = bool(rng.integers(2)), int(rng.integers(4))
        slide = float(rng.uniform(-0.5, 0.5))
        (x, y, _), u = other.pose.origin.tolist(), other.pose.u.tolist()
        flat = math.sqrt(max(1e-9, u[0] ** 2 + u[1] ** 2))
        c, s = u[0] / flat, u[1] / flat
        own = (size[1], size[0]) if is_turned else (size[0], size[1])
        beside = [(1 if side % 2 else -1) * (theirs + mine) / 2 for theirs, mine in zip(other.size, own, strict=False)]
        a, b = (beside[0], slide * other.size[1]) if side < 2 else (slide * other.size[0], beside[1])
        return self.confined(x + c * a - s * b, y + s * a + c * b, (-s, c) if is_turned else (c, s), size)

    def lay(self, spot: Spot, kind: Kind, index: int, look_seed: int) -> Placed:
        """Put an object down on whatever is under the two ends of its length."""
        stretches = (-0.5, -0.1), (0.1, 0.5), (-0.15, 0.15)
        low, high, middle = (self.height(self.cells(spot, along)) for along in stretches)
        slope = max(-_MAX_SLOPE, min(_MAX_SLOPE, (high - low) / (0.8 * spot.size[0])))
        z = max((low + high) / 2, middle * 0.9)
        cells = self.cells(spot)
        below = set(self.owner[cells].tolist()) - {-1}
        self.owner[cells], self.top[cells] = index, z + spot.size[2]
        return Placed(kind, spot.size, Pose.resting(spot.x, spot.y, z, spot.turn, slope), look_seed, below)


def _choose(rng: np.random.Generator, ground: Ground, size: Size, placed: list[Placed], rim: float) -> Spot:
    """The best of some random spots: on another object if that was drawn, else where it is free."""
    stack, contact, wall = rng.random(3)
    target = float(rng.uniform(*_STACK_OVERLAP_FRAC)) if placed and stack < _STACK_PROB else 0.0
    spots: list[tuple[float, Spot]] = []
    while len(spots) < _TRIALS and (not spots or spots[-1][0] >= 0.02):
        if target == 0.0 and wall < _WALL_PROB:
            spot = ground.wall_spot(rng, size)
        elif target == 0.0 and placed and contact < _CONTACT_PROB:
            spot = ground.contact_spot(rng, size, placed[int(rng.integers(len(placed)))])
        else:
            spot = ground.random_spot(rng, size)
        cells = ground.cells(spot)
        overlap = np.count_nonzero(ground.owner[cells] >= 0) / max(1, np.count_nonzero(cells))
        spots.append((abs(overlap - target) + 2.0 * (ground.height(cells) + size[2] > rim), spot))
    return min(spots, key=lambda costed: costed[0])[1]


def scatter(rng: np.random.Generator, ground: Ground, rim: float) -> list[Placed]:
    """A mixed tote: objects in the order in which they were put in."""
    count = weighted(rng, _COUNT_WEIGHTS)
    crowd = max(0.74, min(1.0, math.sqrt(7 / max(count, 1))))
    placed: list[Placed] = []
    for index in range(count):
        kind = KINDS[weighted(rng, _KIND_WEIGHTS)]
        spot = _choose(rng, ground, kind.sample_size(rng, crowd), placed, rim)
        placed.append(ground.lay(spot, kind, index, int(rng.integers(2**62))))
    return placed


def copies(rng: np.random.Generator, ground: Ground, cells: tuple[int, int] | None) -> list[Placed]:
    """A few small copies of one object, none on another: anywhere, some side by side, or one a compartment (x, y)."""
    kind, look_seed = KINDS[weighted(rng, _KIND_WEIGHTS)], int(rng.integers(2**62))
    size = kind.sample_size(rng, float(rng.uniform(0.55, 0.9)))
    placed: list[Placed] = []
    if cells is None:
        for _ in range(1 + int(rng.integers(1, 8))):
            for _ in range(_TRIALS):
                beside = placed and rng.random() < 0.5
                spot = ground.contact_spot(rng, size, placed[-1]) if beside else ground.random_spot(rng, size)
                if not (ground.owner[ground.cells(spot)] >= 0).any():
                    placed.append(ground.lay(spot, kind, len(placed), look_seed))
                    break
        return placed
    pitch = 2 * ground.half_x / cells[0], 2 * ground.half_y / cells[1]
    scale = min(1.0, 0.85 * min(pitch) / max(size[:2]))
    size = (scale * size[0], scale * size[1], scale * size[2])
    for place in rng.permutation(cells[0] * cells[1])[: 1 + int(rng.integers(2, 9))].tolist():
        x = (place % cells[0] + 0.5) * pitch[0] - ground.half_x
        y = (place // cells[0] + 0.5) * pitch[1] - ground.half_y
        spot = Spot(x, y, cos_sin(math.pi * float(rng.random())), size)
        placed.append(ground.lay(spot, kind, len(placed), look_seed))
    return placed


def painting_order(placed: list[Placed], foot: tuple[float, ...]) -> list[Placed]:
    """The objects from the first to paint to the last: what supports comes before what lies on it, else the farther
    from the point under the camera comes first, as its nearer neighbours stand before it.
    """
    todo = sorted(range(len(placed)), key=lambda i: -math.dist(placed[i].pose.origin[:2], foot))
    order: list[int] = []
    while todo:
        order.append(next(i for i in todo if placed[i].supports <= set(order)))
        todo.remove(order[-1])
    return [placed[i] for i in order]
