"""Camera, light and poses: from tote lengths to pixels.

The world's origin is the middle of the tote's floor, x to the right, y down the image, z up to the camera;
its unit is the outer length of the tote's rim. Everything here feeds the masks, so it keeps to operations
that IEEE 754 defines exactly (no matrix products, no SIMD sines): the same seed gives the same annotations on
every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # points (N, 3) of the world or (N, 2) of a picture, or one direction (3,)


def cos_sin(angle_rad: float) -> tuple[float, float]:
    """Cosine and sine, rounded so that the last bits of a machine's libm do not show."""
    return round(math.cos(angle_rad), 9), round(math.sin(angle_rad), 9)


@cache
def _unit_circle(count: int) -> Points:
    return np.array([(*cos_sin(2 * math.pi * i / count), 0.0) for i in range(count)])


def circle(radius: float, z: float, count: int, centre: tuple[float, float] = (0.0, 0.0)) -> Points:
    """A horizontal circle as ``(count, 3)`` points."""
    return _unit_circle(count) * radius + (*centre, z)


def level_quad(x0: float, y0: float, x1: float, y1: float, z: float) -> Points:
    """The corners of a level rectangle as ``(4, 3)`` points: first side left, right, opposite side right, left."""
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], np.float64)


class Light(NamedTuple):
    """Directional light: the unit vector towards it, and the share of light that does not come from there."""

    x: float
    y: float
    z: float
    ambient: float


class Pose(NamedTuple):
    """Where an object stands: its origin (middle of its underside) and the axes of its length, width and height."""

    origin: Points
    u: Points
    v: Points
    w: Points

    @classmethod
    def resting(cls, x: float, y: float, z: float, turn: tuple[float, float], slope: float = 0.0) -> Pose:
        """A pose by its underside's middle; ``slope`` is the sine of the length axis' angle to the floor."""
        c, s = turn
        flat = math.sqrt(1 - slope * slope)
        axes = (c * flat, s * flat, slope), (-s, c, 0.0), (-c * slope, -s * slope, flat)
        return cls(*np.array([(x, y, z), *axes]))

    def to_world(self, points: Points) -> Points:
        """Local ``(N, 3)`` points in world coordinates, ``(N, 3)``."""
        return self.origin + points[:, :1] * self.u + points[:, 1:2] * self.v + points[:, 2:] * self.w

    def direction(self, local: Sequence[float]) -> Points:
        """A local direction in world coordinates, ``(3,)``."""
        return local[0] * self.u + local[1] * self.v + local[2] * self.w


WORLD = Pose(np.zeros(3), *np.eye(3))


class Camera(NamedTuple):
    """A pinhole camera at ``eye``, in tote lengths, that looks straight down and sees what is below it at ``centre``.

    ``turn`` is the cosine and sine of its rotation about the optical axis.
    """

    focal_px: float
    eye: tuple[float, float, float]
    centre_px: tuple[float, float]
    turn: tuple[float, float]

    def scale_px(self, z: float) -> float:
        """Pixels per tote length at a height."""
        return self.focal_px / (self.eye[2] - z)

    def project(self, points: Points) -> Points:
        """World ``(N, 3)`` points to ``(N, 2)`` pixels."""
        x, y = (points[:, :2] - self.eye[:2]).T * (self.focal_px / (self.eye[2] - points[:, 2]))
        c, s = self.turn
        return np.column_stack([self.centre_px[0] + c * x - s * y, self.centre_px[1] + s * x + c * y])
