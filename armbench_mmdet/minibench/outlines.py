"""From the renderer's id map to COCO annotations with modal polygons."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from armbench_mmdet.minibench.scene import SAME_OBJECT, Scene


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
