"""One picture: a tote sampled, filled and painted, the id of every pixel, and its COCO annotations."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from armbench_mmdet.minibench import tote
from armbench_mmdet.minibench.camera import Camera, Light, cos_sin
from armbench_mmdet.minibench.layout import Ground, copies, painting_order, scatter
from armbench_mmdet.minibench.paint import Brush, Canvas, Field, Pixels, fill_polygon, lit, multiply, smooth_noise

SUBSETS = ('mix-object-tote', 'zoomed-out-tote-transfer-set', 'same-object-transfer-set')
MIX, ZOOMED_OUT, SAME_OBJECT = SUBSETS

MIN_VISIBLE_FRAC, MIN_VISIBLE_AREA_FRAC = 0.35, 0.0009
"""Objects that show a smaller share of themselves, or of the image, are taken out of the scene before painting."""

_SUPERSAMPLED_UP_TO_PX = 700
_TOLERANCES_PX = (1.0, 0.6, 0.3, 0.0)
_ENOUGH_IOU = 0.995

Place = tote.Tote | tote.Bench


class Scene(NamedTuple):
    """One rendered picture with its truth."""

    image: Pixels  # (H, W, 3) uint8, BGR
    id_map: NDArray[np.int32]  # (H, W), 0 where there is no object, else the object's id, from 1 on
    visible_fracs: list[float]  # the share of each object that nothing covers, in order of their ids
    tote_mask: NDArray[np.bool_] | None  # (H, W), the tote's outer silhouette; objects inside are not cut out


def render_scene(rng: np.random.Generator, subset: str, width_px: int, height_px: int) -> Scene:
    """Render one picture of a subset; it depends on nothing but the random numbers.

    An object that would show too little is taken out of the scene before it is painted: every object in the picture
    is in the id map, and the other way round.
    """
    factor = 2 if max(width_px, height_px) <= _SUPERSAMPLED_UP_TO_PX else 1
    shape, is_far = (height_px * factor, width_px * factor), subset == ZOOMED_OUT
    place: Place = tote.Bench.sample(rng) if subset == SAME_OBJECT else tote.Tote.sample(rng)
    camera = _sample_camera(rng, is_far, place, shape)
    light_x, light_y = cos_sin(2 * math.pi * float(rng.random()))
    tilt = float(rng.uniform(0.25, 0.6))
    light = Light(tilt * light_x, tilt * light_y, math.sqrt(1 - tilt * tilt), float(rng.uniform(0.3, 0.5)))
    ground = Ground(*place.floor_half)
    canvas = Canvas(camera, light, shape)
    if isinstance(place, tote.Bench):
        placed = copies(rng, ground, place.cells)
        looks = np.random.default_rng(int(rng.integers(2**62)))
        tote.paint_bench(canvas, place, looks)
        tote_mask = None
    else:
        placed = scatter(rng, ground, place.rim)
        looks = np.random.default_rng(int(rng.integers(2**62)))
        tote.paint_surround(canvas.image, looks, camera.scale_px(place.rim), is_far)
        tote.paint_tote(canvas, place, looks)
        tote_mask = canvas.mask[::factor, ::factor] > 0
    image = multiply(canvas.image, _uneven_light(looks, canvas, place))
    placed = painting_order(placed, camera.eye[:2])
    brushes = [Brush(camera, light, item.pose, item.size, lit(place.colour, 0.86)) for item in placed]
    for item, brush in zip(placed, brushes, strict=True):
        item.kind.paint(brush, np.random.default_rng(item.look_seed))
    kept, id_map, visible_fracs = drop_hidden(brushes, (height_px, width_px), factor)
    for i in kept:
        _cast_shadow(image, brushes[i])
        part, patch, mask = _meeting(image, brushes[i].corner_px, brushes[i].image, brushes[i].mask)
        np.copyto(part, patch, where=mask[..., None] > 0)
    if factor > 1:
        image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
    return Scene(_expose(image, looks), id_map, visible_fracs, tote_mask)


def _sample_camera(rng: np.random.Generator, is_far: bool, place: Place, shape: tuple[int, int]) -> Camera:
    rows, columns = shape
    fill = float(rng.uniform(*((0.45, 0.65) if is_far else (0.90, 1.0))))
    length_px = min(fill * columns, fill * rows / (2 * place.half_y + 0.06))
    height = float(rng.uniform(2.0, 2.8) if is_far else rng.uniform(1.25, 1.6))
    jitter = rng.uniform(-1, 1, 5).tolist()
    foot_x, foot_y = 0.06 * jitter[0], 0.05 * jitter[1]
    turn, share = (0.12, 0.30) if is_far else (0.025, 0.25)
    shift_x = share * max(0.0, columns - length_px) * jitter[3]
    shift_y = share * max(0.0, rows - 2 * place.half_y * length_px) * jitter[4]
    centre_px = columns / 2 + shift_x + foot_x * length_px, rows / 2 + shift_y + foot_y * length_px
    return Camera(length_px * (height - place.rim), (foot_x, foot_y, height), centre_px, cos_sin(turn * jitter[2]))


def _uneven_light(rng: np.random.Generator, canvas: Canvas, place: Place) -> Field:
    """Coarse brightness: stains, and less light in the corners between floor and walls."""
    columns, rows = 96, 72
    floor = np.zeros((rows, columns), np.uint8)
    outline = canvas.project(tote.rounded(*place.floor_half, 0.05, 0.0))
    fill_polygon(floor, outline * (columns / canvas.mask.shape[1], rows / canvas.mask.shape[0]), 255)
    bright = cv2.GaussianBlur(floor, (0, 0), 4).astype(np.float32) / 255
    return 0.80 + 0.2 * bright + 0.14 * smooth_noise(rng, columns, rows, 20)


def _meeting(canvas: Pixels, corner_px: Sequence[int], *patches: Pixels) -> list[Pixels]:
    """The part of a canvas that patches of one size at a corner (x, y) cover, and theirs that lie on it, as views."""
    x, y = corner_px
    rows, columns = patches[0].shape[:2]
    part = canvas[max(0, y) : max(0, y + rows), max(0, x) : max(0, x + columns)]
    return [part, *(patch[max(0, -y) :, max(0, -x) :][: part.shape[0], : part.shape[1]] for patch in patches)]


def drop_hidden(
    brushes: list[Brush], shape: tuple[int, int], factor: int
) -> tuple[list[int], NDArray[np.int32], list[float]]:
    """Take out what shows too little, the least visible first, until everything left shows enough.

    What is left are the brushes, by their indices, with the id map, and the visible share of each.
    """
    kept = list(range(len(brushes)))
    least_px = max(4.0, MIN_VISIBLE_AREA_FRAC * shape[0] * shape[1])
    while True:
        id_map, full = np.zeros(shape, np.int32), np.zeros(len(kept), int)
        for number, i in enumerate(kept):
            left, top = brushes[i].corner_px
            x, y = -(left // -factor), -(top // -factor)
            mask = brushes[i].mask[y * factor - top :: factor, x * factor - left :: factor]
            part, mask = _meeting(id_map, (x, y), mask)
            part[mask > 0] = number + 1
            full[number] = np.count_nonzero(mask)
        visible = np.bincount(id_map.ravel(), minlength=len(kept) + 1)[1:]
        poor = np.flatnonzero((visible < least_px) | (visible < MIN_VISIBLE_FRAC * full))
        if not len(poor):
            return kept, id_map, (visible / full).tolist()
        del kept[poor[visible[poor].argmin()]]


def _cast_shadow(image: Pixels, brush: Brush) -> None:
    """Darken what lies around and under an object, soft, away from the light."""
    factor = 4
    pad = brush.px(0.05, 4)
    rows, columns = brush.mask.shape
    small = (max(1, (columns + 2 * pad) // factor), max(1, (rows + 2 * pad) // factor))
    padded = cv2.copyMakeBorder(brush.mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    reach = max(1, brush.px(0.012) // factor) * 2 + 1
    soft = cv2.GaussianBlur(cv2.resize(padded, small, interpolation=cv2.INTER_AREA), (0, 0), reach / 2)
    dark = cv2.resize(255 - cv2.convertScaleAbs(soft, alpha=0.55), padded.shape[::-1])
    shifts = [round(-value * brush.height * 0.7 * brush.scale_px) for value in brush.light[:2]]
    x, y = (corner - pad + shift for corner, shift in zip(brush.corner_px, shifts, strict=True))
    ground, dark = _meeting(image, (x, y), dark)
    if dark.size:
        cv2.multiply(ground, cv2.merge([dark] * 3), dst=ground, scale=1 / 255)


def _expose(image: Pixels, rng: np.random.Generator) -> Pixels:
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


def _boundaries(left: int, piece: NDArray[np.uint8]) -> Sequence[Any]:
    """Outer boundaries along the pixels' edges of a piece that begins at a column, in half pixels, each ``(N, 1, 2)``.

    A pixel at (r, c) becomes the 3×3 block around (2r+1, 2c+1) of a grid whose even rows and columns are the
    edges between pixels. OpenCV's contour runs through the middles of that grid's cells, hence exactly along the
    edges of the pixels, where on the mask itself it would cut off half a pixel on every side.
    """
    rows, columns = piece.shape
    grid = np.zeros((2 * rows + 1, 2 * columns + 1), np.uint8)
    grid[1::2, 1::2] = piece
    blocks = cv2.dilate(grid, np.ones((3, 3), np.uint8))
    return cv2.findContours(blocks, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(2 * left, 0))[0]


def _polygon(boundary: NDArray[np.int32], tolerance_px: float) -> NDArray[np.float64]:
    """A boundary simplified to within a tolerance, ``(N, 2)`` in px: through the middles of pixel edges, not stairs."""
    middles = boundary[(boundary % 2).sum(axis=(1, 2)) == 1]
    simple = cv2.approxPolyDP(middles if tolerance_px else boundary, 2 * tolerance_px, True)
    return (simple if len(simple) >= 3 else boundary)[:, 0] / 2


def mask_polygons(mask: NDArray[np.bool_]) -> tuple[list[list[float]], list[int]]:
    """Polygons that pycocotools rasterises to the mask (IoU at least 0.995 unless a pixel or two cannot be had).

    Args:
        mask: ``(H, W) bool`` with at least one pixel; may have several parts and holes.

    Returns:
        Polygons ``[x0, y0, x1, y1, …]`` in COCO coordinates (pixel (0, 0) covers 0…1), as few points as reach that IoU,
        and the mask's box as left, top, width, height.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    crop = np.ascontiguousarray(mask[top : top + height, left : left + width]).view(np.uint8)
    boundaries = [line for piece in _without_holes(crop) for line in _boundaries(*piece)]
    truth = coco_mask.encode(np.asfortranarray(crop))
    best: tuple[float, list[NDArray[np.float64]]] = (-1.0, [])
    for tolerance_px in _TOLERANCES_PX:
        polygons = [_polygon(line, tolerance_px) for line in boundaries]
        runs = coco_mask.merge(coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], height, width))
        iou = float(coco_mask.iou([runs], [truth], [0])[0, 0])
        best = max(best, (iou, polygons), key=lambda tried: tried[0])
        if iou >= _ENOUGH_IOU:
            break
    return [np.add(polygon, (left, top)).ravel().tolist() for polygon in best[1]], [left, top, width, height]


def scene_annotations(scene: Scene) -> list[dict[str, Any]]:
    """A scene's COCO annotations without ``id`` and ``image_id``: the tote first, then the objects by id.

    The tote's mask is its outer silhouette, as in ARMBench: the objects inside are not cut out of it; same-object has
    none. ``area`` counts the mask's pixels. ``visible_frac``, not COCO's, is the share that nothing covers.
    """
    totes = [] if scene.tote_mask is None else [(1, scene.tote_mask, 1.0)]
    found = [(len(totes) + 1, scene.id_map == number, share) for number, share in enumerate(scene.visible_fracs, 1)]
    rows = []
    for category, mask, share in totes + found:
        polygons, box = mask_polygons(mask)
        row = {'category_id': category, 'segmentation': polygons, 'bbox': box, 'area': int(np.count_nonzero(mask))}
        rows.append({**row, 'iscrowd': 0, 'visible_frac': round(share, 4)})
    return rows
