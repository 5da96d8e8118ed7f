"""One picture: a tote sampled, filled and painted, the id of every pixel, and its COCO annotations."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from armbench_mmdet.minibench.camera import Camera, Light, cos_sin
from armbench_mmdet.minibench.layout import Ground, copies, painting_order, scatter
from armbench_mmdet.minibench.paint import Brush, Canvas, Pixels, fill_polygon, lit, multiply, smooth_noise
from armbench_mmdet.minibench.tote import (
    Bench,
    Tote,
    paint_bench,
    paint_surround,
    paint_tote,
    rounded,
    sample_tote,
    silhouette,
)

MIN_VISIBLE_FRAC, MIN_VISIBLE_AREA_FRAC = 0.35, 0.0009
"""Objects that show a smaller share of themselves, or of the image, are taken out of the scene before painting."""


def _meeting(top_px: int, left_px: int, patch: Pixels, canvas: Pixels) -> tuple[Pixels, Pixels]:
    """Of a canvas and a patch on it the parts where they meet, as views; empty where they do not."""
    places = zip((top_px, left_px), patch.shape, canvas.shape, strict=False)
    spans = [(start, max(0, start), max(0, start, min(side, start + length))) for start, length, side in places]
    on_canvas = tuple(slice(first, last) for _, first, last in spans)
    return canvas[on_canvas], patch[tuple(slice(first - start, last - start) for start, first, last in spans)]


def cast_shadow(canvas: Pixels, brush: Brush) -> None:
    """Darken what lies around and under an object, soft, away from the light."""
    factor = 4
    pad = brush.px(0.05, 4)
    light, height = brush.light, brush.size[2]
    shift_x, shift_y = (round(-value * height * 0.7 * brush.scale_px) for value in (light.x, light.y))
    rows, columns = brush.mask.shape
    small = (max(1, (columns + 2 * pad) // factor), max(1, (rows + 2 * pad) // factor))
    padded = cv2.copyMakeBorder(brush.mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    reach = max(1, brush.px(0.012) // factor) * 2 + 1
    soft = cv2.GaussianBlur(cv2.resize(padded, small, interpolation=cv2.INTER_AREA), (0, 0), reach / 2)
    dark = cv2.resize(255 - cv2.convertScaleAbs(soft, alpha=0.55), padded.shape[::-1])
    ground, dark = _meeting(brush.top_px - pad + shift_y, brush.left_px - pad + shift_x, dark, canvas)
    if dark.size:
        cv2.multiply(ground, cv2.merge([dark] * 3), dst=ground, scale=1 / 255)


def composite(canvas: Pixels, brush: Brush) -> None:
    """Put an object's patch on the canvas."""
    part, image = _meeting(brush.top_px, brush.left_px, brush.image, canvas)
    _, mask = _meeting(brush.top_px, brush.left_px, brush.mask, canvas)
    np.copyto(part, image, where=mask[..., None] > 0)


def _number(brushes: list[Brush], shape: tuple[int, int], factor: int) -> tuple[NDArray[np.int32], NDArray[np.int_]]:
    """Id map at the picture's resolution and each brush's full area there."""
    id_map, areas = np.zeros(shape, np.int32), []
    for number, brush in enumerate(brushes, 1):
        top, left = -(brush.top_px // -factor), -(brush.left_px // -factor)
        mask = brush.mask[top * factor - brush.top_px :: factor, left * factor - brush.left_px :: factor]
        part, mask = _meeting(top, left, mask, id_map)
        part[mask > 0] = number
        areas.append(int(np.count_nonzero(mask)))
    return id_map, np.array(areas, int)


def drop_hidden(
    brushes: list[Brush], shape: tuple[int, int], factor: int
) -> tuple[list[int], NDArray[np.int32], list[float]]:
    """Take out what shows too little, the least visible first, until everything left shows enough.

    Returns:
        Indices of the brushes kept, the id map, and the visible share of each.
    """
    kept = list(range(len(brushes)))
    least_px = max(4.0, MIN_VISIBLE_AREA_FRAC * shape[0] * shape[1])
    while True:
        id_map, full = _number([brushes[i] for i in kept], shape, factor)
        visible = np.bincount(id_map.ravel(), minlength=len(kept) + 1)[1:]
        poor = np.flatnonzero((visible < least_px) | (visible < MIN_VISIBLE_FRAC * full))
        if not len(poor):
            return kept, id_map, (visible / full).tolist()
        del kept[poor[visible[poor].argmin()]]


def expose(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Uneven light, lens blur and sensor noise."""
    rows, columns = image.shape[:2]
    small_y, small_x = 24, 32
    x = np.linspace(-1, 1, small_x, dtype=np.float32)[None, :] - np.float32(rng.uniform(-0.4, 0.4))
    y = np.linspace(-1, 1, small_y, dtype=np.float32)[:, None] - np.float32(rng.uniform(-0.4, 0.4))
    field = np.float32(rng.uniform(1.0, 1.2)) - np.float32(rng.uniform(0.1, 0.28)) * (x * x + y * y) / 2
    field *= 0.95 + 0.1 * smooth_noise(rng, small_x, small_y, 5)
    image = multiply(image, field)
    sigma = float(rng.uniform(0.0, 0.45)) * rows / 256
    if sigma > 0.15:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(rng.uniform(1.5, 4.0))
    grain = np.clip(noise + np.float32(128), 0, 255).astype(np.uint8)
    return cv2.addWeighted(image, 1.0, cv2.merge([grain] * 3), 1.0, -128)


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
    centre_px = width_px / 2 + shift_x + foot_x * length_px, height_px / 2 + shift_y + foot_y * length_px
    return Camera(focal_px, (foot_x, foot_y, height), centre_px, turn)


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
    canvas = Canvas(np.zeros((height_px * factor, width_px * factor, 3), np.uint8), camera, light)
    stencil = None
    if isinstance(place, Bench):
        placed = copies(rng, ground, place.cells)
        looks = np.random.default_rng(int(rng.integers(2**62)))
        paint_bench(canvas, place, looks)
    else:
        placed = scatter(rng, ground, place.rim)
        looks = np.random.default_rng(int(rng.integers(2**62)))
        paint_surround(canvas.image, looks, camera.scale_px(place.rim), subset == ZOOMED_OUT)
        paint_tote(canvas, place, looks)
        stencil = np.zeros(canvas.image.shape[:2], np.uint8)
        fill_polygon(stencil, camera.project(silhouette(place)), 1)
    image = multiply(canvas.image, _uneven_light(looks, camera, place, canvas.image.shape))
    placed = [placed[i] for i in painting_order(placed, camera.eye[:2])]
    brushes = [Brush(camera, light, item.pose, item.size, lit(place.colour, 0.86)) for item in placed]
    for item, brush in zip(placed, brushes, strict=True):
        item.kind.paint(brush, np.random.default_rng(item.look_seed))
    kept, id_map, visible = drop_hidden(brushes, (height_px, width_px), factor)
    for i in kept:
        cast_shadow(image, brushes[i])
        composite(image, brushes[i])
    if factor > 1:
        image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
    numbered = enumerate(zip(kept, visible, strict=True), 1)
    objects = [SceneObject(number, placed[i].kind.name, share) for number, (i, share) in numbered]
    tote_mask = None if stencil is None else stencil[::factor, ::factor].astype(bool)
    return Scene(expose(image, looks), id_map, objects, tote_mask)


def categories(subset: str) -> list[dict[str, Any]]:
    """The release's categories: same-object has one, whose id is the tote's in the others."""
    names = ('Object',) if subset == SAME_OBJECT else ('Tote', 'Object')
    return [{'id': number, 'name': name, 'supercategory': ''} for number, name in enumerate(names, 1)]


Mask = NDArray[np.bool_]
Polygon = list[float]

_TOLERANCES_PX = (1.0, 0.6, 0.3, 0.0)
_ENOUGH_IOU = 0.995


def _boundary(part: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Outer boundaries along the pixels' edges, in half pixels, each ``(N, 2)``.

    A pixel at (r, c) becomes the 3×3 block around (2r+1, 2c+1) of a grid whose even rows and columns are the
    edges between pixels. OpenCV's contour runs through the middles of that grid's cells, hence exactly along the
    edges of the pixels, where on the mask itself it would cut off half a pixel on every side.
    """
    rows, columns = part.shape
    grid = np.zeros((2 * rows + 1, 2 * columns + 1), np.uint8)
    grid[1::2, 1::2] = part
    blocks = cv2.dilate(grid, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(blocks, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0, :].astype(np.float64) for contour in contours]


def _polygon(boundary: NDArray[np.float64], tolerance_px: float) -> NDArray[np.float64]:
    """A boundary simplified to within a tolerance, ``(N, 2)`` in px: through the middles of pixel edges, not stairs."""
    if tolerance_px == 0.0:
        corners = cv2.approxPolyDP(boundary.astype(np.int32)[:, None], 0.0, True)[:, 0]
        return corners / 2
    middles = boundary[(boundary % 2).sum(axis=1) == 1]
    simple = cv2.approxPolyDP(middles.astype(np.int32)[:, None], 2 * tolerance_px, True)[:, 0]
    return simple / 2 if len(simple) >= 3 else boundary / 2


def _without_holes(part: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.uint8]]]:
    """Cut a part through its holes, as COCO polygons have none; pieces with the column where they begin."""
    pieces, todo = [], [(0, part)]
    while todo:
        left, piece = todo.pop()
        contours, hierarchy = cv2.findContours(piece, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        holes = [c for c, h in zip(contours, hierarchy[0], strict=True) if h[3] >= 0] if contours else []
        if not holes:
            pieces.append((left, piece))
            continue
        xs = holes[0][:, 0, 0]
        cut = min(max(1, (int(xs.min()) + int(xs.max()) + 1) // 2), piece.shape[1] - 1)
        todo += [(left, np.ascontiguousarray(piece[:, :cut])), (left + cut, np.ascontiguousarray(piece[:, cut:]))]
    return pieces


def mask_polygons(mask: Mask) -> tuple[list[Polygon], tuple[int, int, int, int]]:
    """Polygons that pycocotools rasterises to the mask (IoU at least 0.995 unless a pixel or two cannot be had).

    Args:
        mask: ``(H, W) bool`` with at least one pixel; may have several parts and holes.

    Returns:
        Polygons ``[x0, y0, x1, y1, …]`` in COCO coordinates (pixel (0, 0) covers 0…1), as few points as reach that IoU,
        and the mask's box as left, top, width, height.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    crop = np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1]).view(np.uint8)
    shape = crop.shape
    boundaries = [line + np.array([2 * x, 0]) for x, piece in _without_holes(crop) for line in _boundary(piece)]
    truth = coco_mask.encode(np.asfortranarray(crop))
    best: list[NDArray[np.float64]] = []
    best_iou = -1.0
    for tolerance_px in _TOLERANCES_PX:
        polygons = [_polygon(line, tolerance_px) for line in boundaries]
        runs = coco_mask.merge(coco_mask.frPyObjects([p.ravel().tolist() for p in polygons], *shape))
        iou = float(coco_mask.iou([runs], [truth], [0])[0, 0])
        if iou > best_iou:
            best, best_iou = polygons, iou
        if iou >= _ENOUGH_IOU:
            break
    shifted = [(polygon + np.array([left, top])).ravel().tolist() for polygon in best]
    return shifted, (left, top, shape[1], shape[0])


def scene_annotations(scene: Scene) -> list[dict[str, Any]]:
    """A scene's COCO annotations without ``id`` and ``image_id``: the tote first, then the objects by id.

    The tote's mask is its outer silhouette, as in ARMBench: the objects inside are not cut out of it; same-object has
    none. ``area`` counts the mask's pixels. ``visible_frac``, not COCO's, is the share that nothing covers.
    """
    totes = [] if scene.tote_mask is None else [(scene.tote_mask, 1.0)]
    masks = totes + [(scene.id_map == item.id, item.visible_frac) for item in scene.objects]
    rows = []
    for number, (mask, visible_frac) in enumerate(masks):
        polygons, box = mask_polygons(mask)
        category = 1 if number < len(totes) else len(totes) + 1
        row = {
            'category_id': category,
            'segmentation': polygons,
            'bbox': list(box),
            'area': int(np.count_nonzero(mask)),
        }
        rows.append({**row, 'iscrowd': 0, 'visible_frac': round(visible_frac, 4)})
    return rows
