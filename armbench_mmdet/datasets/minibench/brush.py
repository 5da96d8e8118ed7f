"""Painting one object into a small patch: faces with textures, flat faces, lines."""

from __future__ import annotations

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from armbench_mmdet.datasets.minibench.camera import Camera, Light, Points, Pose
from armbench_mmdet.datasets.minibench.palette import Colour

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

    Attributes:
        image: ``(h, w, 3) uint8`` BGR colours.
        mask: ``(h, w) uint8`` 255 where the object is.
        opacity: ``(h, w) uint8`` for translucent objects, else None.
        left_px: Canvas column of the patch's first column.
        top_px: Canvas row of the patch's first row.
        scale_px: Pixels per tote length as if the object lay on the floor: copies get equal textures wherever they lie.
        floor: The floor's colour, to keep away from.
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
        self.opacity: Pixels | None = None
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

    def _window(self, outline_px: Points) -> tuple[int, int, int, int] | None:
        low = np.maximum(np.floor(outline_px.min(axis=0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(outline_px.max(axis=0)).astype(int) + 2, self.mask.shape[::-1])
        if (high <= low).any():
            return None
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def face(self, texture: Pixels, quad: Points, outline: Points | None = None, shade: float = 1.0) -> None:
        """Draw a texture.

        Args:
            texture: ``(h, w, 3) uint8``.
            quad: ``(4, 3)`` local places of the texture's corners: first row left, right, last row right, left.
            outline: ``(N, 3)`` local outline to cut it to; None for the quad itself.
            shade: Brightness factor.
        """
        quad_px = self.project(quad)
        outline_px = quad_px if outline is None else self.project(outline)
        window = self._window(outline_px)
        if window is None:
            return
        x0, y0, x1, y1 = window
        rows, columns = texture.shape[:2]
        source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32) - np.float32(0.5)
        transform = cv2.getPerspectiveTransform(source, (quad_px - (x0, y0)).astype(np.float32))
        warped = cv2.warpPerspective(
            texture, transform, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
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
        cv2.polylines(
            self.image, [fixed(self.project(points))], closed, colour, max(1, width_px), cv2.LINE_AA, _SUBPIXEL_BITS
        )

    def see_through(self, opacity: Pixels) -> None:
        """Make the object translucent; ``opacity`` is ``(h, w) uint8`` like the patch."""
        self.opacity = opacity
