"""One picture: sample a tote, fill it, paint it, and say which pixel belongs to what."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench.camera import Camera, Light, cos_sin
from armbench_mmdet.minibench.compositing import cast_shadow, composite, drop_hidden, expose
from armbench_mmdet.minibench.layout import Ground, copies, painting_order, scatter
from armbench_mmdet.minibench.paint import Brush, Pixels, fill_polygon, lit, multiply, smooth_noise
from armbench_mmdet.minibench.tote import (
    Bench,
    Tote,
    TotePainter,
    paint_bench,
    paint_surround,
    rounded,
    sample_tote,
    silhouette,
)

SUBSETS = ('mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set')
MIX, ZOOMED_OUT, SAME_OBJECT = SUBSETS

_SUPERSAMPLED_UP_TO_PX = 700


class SceneObject(NamedTuple):
    """One annotated object: its number in the id map, its kind, and the share of it that nothing covers."""

    id: int
    kind: str
    visible_frac: float


@dataclass(frozen=True)
class Scene:
    """One rendered picture with its truth.

    Attributes:
        image: ``(H, W, 3) uint8`` BGR.
        id_map: ``(H, W) int32`` 0 where there is no object, else the object's id.
        objects: The objects in order of their ids.
        tote_mask: ``(H, W) bool`` the tote's outer silhouette; objects inside are not cut out; or None.
    """

    image: Pixels
    id_map: NDArray[np.int32]
    objects: list[SceneObject]
    tote_mask: NDArray[np.bool_] | None


def _sample_camera(rng: np.random.Generator, subset: str, place: Tote | Bench, width_px: int, height_px: int) -> Camera:
    zoomed = subset == ZOOMED_OUT
    fill = float(rng.uniform(*((0.45, 0.65) if zoomed else (0.90, 1.0))))
    length_px = min(fill * width_px, fill * height_px / (2 * place.half_y + 0.06))
    height = float(rng.uniform(2.0, 2.8) if zoomed else rng.uniform(1.25, 1.6))
    jitter = [float(value) for value in rng.uniform(-1, 1, 5)]
    foot_x, foot_y = 0.06 * jitter[0], 0.05 * jitter[1]
    turn = cos_sin((0.12 if zoomed else 0.025) * jitter[2])
    focal_px = length_px * (height - place.rim)
    room_x, room_y = max(0.0, width_px - length_px), max(0.0, height_px - 2 * place.half_y * length_px)
    share = 0.30 if zoomed else 0.25
    shift_x, shift_y = share * room_x * jitter[3], share * room_y * jitter[4]
    centre_x_px = width_px / 2 + shift_x + foot_x * length_px
    centre_y_px = height_px / 2 + shift_y + foot_y * length_px
    return Camera(focal_px, height, foot_x, foot_y, centre_x_px, centre_y_px, turn)


def _sample_light(rng: np.random.Generator) -> Light:
    c, s = cos_sin(2 * math.pi * float(rng.random()))
    tilt = float(rng.uniform(0.25, 0.6))
    return Light(tilt * c, tilt * s, math.sqrt(1 - tilt * tilt), float(rng.uniform(0.3, 0.5)))


def _uneven_light(
    rng: np.random.Generator, camera: Camera, place: Tote | Bench, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Coarse brightness: stains, and less light in the corners between floor and walls."""
    columns, rows = 96, 72
    floor = np.zeros((rows, columns), np.uint8)
    half_x, half_y = place.floor_half
    outline = camera.project(rounded(half_x, half_y, 0.05, 0.0)) * (columns / shape[1], rows / shape[0])
    fill_polygon(floor, outline, 255)
    bright = cv2.GaussianBlur(floor, (0, 0), 4).astype(np.float32) / 255
    return 0.80 + 0.2 * bright + 0.14 * smooth_noise(rng, columns, rows, 20)


def render_scene(rng: np.random.Generator, subset: str, width_px: int, height_px: int) -> Scene:
    """Render one picture of a subset; it depends on nothing but the random numbers.

    An object that would show too little is taken out of the scene before it is painted: every object in the picture
    is in the id map, and the other way round.
    """
    factor = 2 if max(width_px, height_px) <= _SUPERSAMPLED_UP_TO_PX else 1
    place: Tote | Bench = Bench.sample(rng) if subset == SAME_OBJECT else sample_tote(rng)
    camera = _sample_camera(rng, subset, place, width_px * factor, height_px * factor)
    light = _sample_light(rng)
    ground = Ground(*place.floor_half)
    canvas: Pixels = np.zeros((height_px * factor, width_px * factor, 3), np.uint8)
    stencil = None
    if isinstance(place, Bench):
        placed = copies(rng, ground, place.cells)
        looks = np.random.default_rng(int(rng.integers(2**62)))
        paint_bench(canvas, camera, place, looks)
    else:
        placed = scatter(rng, ground, place.rim)
        looks = np.random.default_rng(int(rng.integers(2**62)))
        paint_surround(canvas, looks, camera.scale_px(place.rim), subset == ZOOMED_OUT)
        TotePainter(canvas, camera, light, place, looks).paint()
        stencil = np.zeros(canvas.shape[:2], np.uint8)
        fill_polygon(stencil, camera.project(silhouette(place)), 1)
    canvas = multiply(canvas, _uneven_light(looks, camera, place, canvas.shape[:2]))
    placed = [placed[i] for i in painting_order(placed, (camera.foot_x, camera.foot_y))]
    brushes = [Brush(camera, light, item.pose, item.size, lit(place.colour, 0.86)) for item in placed]
    for item, brush in zip(placed, brushes, strict=True):
        item.kind.paint(brush, np.random.default_rng(item.look_seed))
    kept, id_map, visible = drop_hidden(brushes, (height_px, width_px), factor)
    for i in kept:
        cast_shadow(canvas, brushes[i])
        composite(canvas, brushes[i])
    if factor > 1:
        canvas = cv2.resize(canvas, (width_px, height_px), interpolation=cv2.INTER_AREA)
    numbered = enumerate(zip(kept, visible, strict=True), 1)
    objects = [SceneObject(number, placed[i].kind.name, share) for number, (i, share) in numbered]
    tote_mask = None if stencil is None else stencil[::factor, ::factor].astype(bool)
    return Scene(expose(canvas, looks), id_map, objects, tote_mask)
