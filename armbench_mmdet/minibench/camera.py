"""Camera, light and poses: from tote lengths to pixels.

The world's origin is the middle of the tote's floor, x to the right, y down the image, z up to the camera;
its unit is the outer length of the tote's rim. Everything here feeds the masks, so it keeps to operations
that IEEE 754 defines exactly (no matrix products, no SIMD sines): the same seed gives the same annotations on
every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def cos_sin(angle_rad: float) -> tuple[float, float]:
    """Cosine and sine, rounded so that the last bits of a machine's libm do not show."""
    return round(math.cos(angle_rad), 9), round(math.sin(angle_rad), 9)


@lru_cache(maxsize=32)
def _unit_circle(count: int) -> Points:
    return np.array([(*cos_sin(2 * math.pi * i / count), 0.0) for i in range(count)])


def circle(radius: float, z: float, count: int, centre: tuple[float, float] = (0.0, 0.0)) -> Points:
    """A horizontal circle as ``(count, 3)`` points."""
    points = _unit_circle(count) * radius
    points += (centre[0], centre[1], z)
    return points


def level_quad(x0: float, y0: float, x1: float, y1: float, z: float) -> Points:
    """The corners of a level rectangle as ``(4, 3)`` points: first side left, right, opposite side right, left."""
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], np.float64)


@dataclass(frozen=True)
class Light:
    """Directional light: the unit vector towards it, and the share of light that does not come from there."""

    x: float
    y: float
    z: float
    ambient: float

    def shade(self, normal: tuple[float, float, float]) -> float:
        """Brightness of a face with this unit world normal, relative to one that lies flat."""
        facing = max(0.0, normal[0] * self.x + normal[1] * self.y + normal[2] * self.z)
        return (self.ambient + (1 - self.ambient) * facing) / (self.ambient + (1 - self.ambient) * self.z)


@dataclass(frozen=True)
class Pose:
    """Where an object stands: its origin (middle of its underside) and the axes of its length, width and height."""

    origin: tuple[float, float, float]
    u: tuple[float, float, float]
    v: tuple[float, float, float]
    w: tuple[float, float, float]

    @classmethod
    def resting(cls, x: float, y: float, z: float, turn: tuple[float, float], slope: float = 0.0) -> Pose:
        """A pose by its underside's middle; ``slope`` is the sine of the length axis' angle to the floor."""
        c, s = turn
        flat = math.sqrt(1 - slope * slope)
        return cls((x, y, z), (c * flat, s * flat, slope), (-s, c, 0.0), (-c * slope, -s * slope, flat))

    def to_world(self, points: Points) -> Points:
        """Local ``(N, 3)`` points in world coordinates, ``(N, 3)``."""
        origin, u, v, w = self._axes
        return origin + points[:, :1] * u + points[:, 1:2] * v + points[:, 2:] * w

    @cached_property
    def _axes(self) -> Points:
        return np.array([self.origin, self.u, self.v, self.w])

    def direction(self, local: tuple[float, float, float]) -> tuple[float, float, float]:
        """A local direction in world coordinates."""
        x, y, z = (local[0] * self.u[i] + local[1] * self.v[i] + local[2] * self.w[i] for i in range(3))
        return x, y, z


@dataclass(frozen=True)
class Camera:
    """A pinhole camera ``height`` tote lengths above the floor, looking straight down on ``foot``, seen at ``centre``.

    ``turn`` is the cosine and sine of its rotation about the optical axis.
    """

    focal_px: float
    height: float
    foot_x: float
    foot_y: float
    centre_x_px: float
    centre_y_px: float
    turn: tuple[float, float]

    def scale_px(self, z: float) -> float:
        """Pixels per tote length at a height."""
        return self.focal_px / (self.height - z)

    def project(self, points: Points) -> Points:
        """World ``(N, 3)`` points to ``(N, 2)`` pixels."""
        scale = self.focal_px / (self.height - points[:, 2])
        x = (points[:, 0] - self.foot_x) * scale
        y = (points[:, 1] - self.foot_y) * scale
        c, s = self.turn
        pixels = np.empty((len(points), 2))
        pixels[:, 0] = self.centre_x_px + c * x - s * y
        pixels[:, 1] = self.centre_y_px + s * x + c * y
        return pixels

    def sees(self, point: Points, normal: tuple[float, float, float]) -> bool:
        """Whether a face at a world ``(3,)`` point with this world normal turns to the camera."""
        to_x, to_y, to_z = self.foot_x - point[0], self.foot_y - point[1], self.height - point[2]
        return bool(to_x * normal[0] + to_y * normal[1] + to_z * normal[2] > 0)
