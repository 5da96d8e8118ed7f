"""What lies where on the tote's floor, coarsely: enough to find free places and to stack."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_CELLS_PER_LENGTH = 128


@dataclass(frozen=True)
class Spot:
    """A candidate place: middle and direction of a footprint of length × width."""

    x: float
    y: float
    turn: tuple[float, float]
    length: float
    width: float

    def reach(self) -> tuple[float, float]:
        """Half the extent along the world's x and y axes."""
        c, s = abs(self.turn[0]), abs(self.turn[1])
        return (c * self.length + s * self.width) / 2, (s * self.length + c * self.width) / 2


class Ground:
    """What lies where, on a coarse grid over the tote's floor."""

    def __init__(self, half_x: float, half_y: float) -> None:
        self.half_x, self.half_y = half_x, half_y
        shape = (int(2 * half_y * _CELLS_PER_LENGTH) + 1, int(2 * half_x * _CELLS_PER_LENGTH) + 1)
        self.owner: NDArray[np.int16] = np.full(shape, -1, np.int16)
        self.top = np.zeros(shape)

    def cells(self, spot: Spot, along: tuple[float, float] = (-0.5, 0.5)) -> NDArray[np.bool_]:
        """Grid cells under a footprint, or under a stretch of its length."""
        c, s = spot.turn
        corners = []
        for a, b in ((along[0], -0.5), (along[1], -0.5), (along[1], 0.5), (along[0], 0.5)):
            u, v = a * spot.length * 0.96, b * spot.width * 0.96
            x = (spot.x + c * u - s * v + self.half_x) * _CELLS_PER_LENGTH
            y = (spot.y + s * u + c * v + self.half_y) * _CELLS_PER_LENGTH
            corners.append((round(x), round(y)))
        stencil = np.zeros(self.owner.shape, np.uint8)
        cv2.fillConvexPoly(stencil, np.array(corners, np.int32), 1)
        return stencil.view(bool)

    def height(self, cells: NDArray[np.bool_]) -> float:
        """Height of the highest thing under the cells."""
        return float(self.top[cells].max(initial=0.0))

    def add(self, index: int, cells: NDArray[np.bool_], top: float) -> tuple[int, ...]:
        """Occupy cells; return the objects that lay there."""
        below = tuple(int(i) for i in np.unique(self.owner[cells]) if i >= 0)
        self.owner[cells] = index
        self.top[cells] = top
        return below

    def confine(self, spot: Spot) -> Spot:
        """The spot, moved until it lies within the floor (or in its middle if it is too large)."""
        reach_x, reach_y = spot.reach()
        room_x, room_y = max(0.0, self.half_x - reach_x), max(0.0, self.half_y - reach_y)
        x, y = min(room_x, max(-room_x, spot.x)), min(room_y, max(-room_y, spot.y))
        return Spot(x, y, spot.turn, spot.length, spot.width)
