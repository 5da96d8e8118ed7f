"""Masks as runs of pixels, many at once: read from COCO's segmentations, and the pixels that two have in common."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled
from armbench_mmdet.masks import encode

UPSAMPLED = 5  # COCO rounds the corners of a polygon to fifths of a pixel


class Runs(NamedTuple):
    """N masks; a *position* is ``x · H + y``, down the columns."""

    switches: np.ndarray  # (S,) int32, the first position of each run and the first one after it, mask after mask
    starts: np.ndarray  # (N + 1,) int64, where the switches of each mask begin
    areas: np.ndarray  # (N,) int64, px
    boxes: np.ndarray  # (N, 4) int32, x1, y1, x2, y2 in px, ends excluded; zeros for an empty mask


def run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of polygons, uncompressed or compressed run lengths."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation['counts'], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def runs_of(segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> Runs:
    """The masks of COCO's segmentations, in all of its forms, in images of heights and widths; equal to pycocotools'.

    Raises:
        InputError: Run lengths are of another size than the image.
    """
    polygons: list[Sequence[float]] = []
    codes: list[str] = []
    for segmentation, size in zip(segmentations, sizes, strict=True):
        if isinstance(segmentation, list) and len(segmentation) == 1 and len(segmentation[0]) >= 6:
            polygons.append(segmentation[0])
            codes.append('')
            continue
        rle = run_lengths(segmentation, *size)
        if tuple(rle['size']) != size:
            raise InputError(f'mask size must be that of the image, {list(size)} (height, width), got {rle["size"]}')
        polygons.append(())
        codes.append(rle['counts'] if isinstance(rle['counts'], str) else rle['counts'].decode())
    code_ends, point_ends = (np.cumsum([0, *map(len, parts)]) for parts in (codes, polygons))
    points = np.fromiter(chain.from_iterable(polygons), np.float64, point_ends[-1])
    code = np.frombuffer(''.join(codes).encode(), np.uint8)
    return Runs(*_read(code, code_ends, points, point_ends, np.array(sizes, np.int64).reshape(-1, 2)))


@compiled
def _read(
    code: np.ndarray, code_ends: np.ndarray, points: np.ndarray, point_ends: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    count = len(sizes)
    room = code.size + 2 * count
    for i in range(count):
        room += _crossings(points[point_ends[i] : point_ends[i + 1]])
    switches, starts = np.empty(room, np.int32), np.zeros(count + 1, np.int64)
    areas, boxes = np.zeros(count, np.int64), np.zeros((count, 4), np.int32)
    for i in range(count):
        own, height = switches[starts[i] :], sizes[i, 0]
        if point_ends[i + 1] > point_ends[i]:
            length = _draw(points[point_ends[i] : point_ends[i + 1]], height, sizes[i, 1], own)
        else:
            length = _decode(code[code_ends[i] : code_ends[i + 1]], own)
        starts[i + 1] = starts[i] + length
        areas[i] = measure(own[:length], height, boxes[i])
    return switches[: starts[count]].copy(), starts, areas, boxes


@compiled
def _decode(code: np.ndarray, switches: np.ndarray) -> int:
    """Write the switches of COCO's compressed run lengths and return how many."""
    counts, position = encode.run_lengths(code), 0
    for number in range(len(counts)):
        position += counts[number]
        switches[number] = position
    return len(counts) // 2 * 2  # after the last run nothing begins


@compiled
def measure(switches: np.ndarray, height: int, box: np.ndarray) -> int:
    """Write a mask's box and return its area in px; its switches are an even number."""
    area, top, bottom, column = 0, height, 0, 0
    for i in range(0, switches.size, 2):
        start, end = switches[i], switches[i + 1]
        if start == end:
            continue
        if not area:
            box[0] = start // height
            column = box[0] * height
        while start >= column + height:
            column += height
        area += end - start
        top, bottom = min(top, start - column), max(bottom, min(end - column, height))
        if end > column + height:  # the run goes on at the head of the next column
            top, column = 0, (end - 1) // height * height
    if area:
        box[1], box[2], box[3] = top, column // height + 1, bottom
    return area


@compiled
def _crossings(points: np.ndarray) -> int:
    """The most switches that a polygon can have."""
    total = 2
    for i in range(0, points.size, 2):
        total += int(abs(points[i] - points[(i + 2) % points.size])) + 2
    return total


@compiled
def _draw(points: np.ndarray, height: int, width: int, switches: np.ndarray) -> int:
    """Write the switches of a polygon, x and y in turn, and return how many: COCO's rule, pixel for pixel.

    Corners are rounded to fifths of a pixel. Each edge is walked in such steps along its longer side; where a step
    passes the middle of a column, the mask changes in that column at the upper end of the step.
    """
    room, number = _crossings(points), 0
    columns, rows = np.empty(room, np.int64), np.empty(room, np.int64)
    for i in range(0, points.size - 1, 2):
        after = i + 2 if i + 3 < points.size else 0
        x0, y0 = int(UPSAMPLED * points[i] + 0.5), int(UPSAMPLED * points[i + 1] + 0.5)
        x1, y1 = int(UPSAMPLED * points[after] + 0.5), int(UPSAMPLED * points[after + 1] + 0.5)
        if x0 == x1:
            continue
        is_flat = abs(x1 - x0) >= abs(y1 - y0)
        if (x0 > x1) if is_flat else (y0 > y1):
            x0, y0, x1, y1 = x1, y1, x0, y0
        slope = (y1 - y0) / (x1 - x0) if is_flat else (x1 - x0) / (y1 - y0)
        left, right = min(x0, x1), max(x0, x1)
        for column in range(max((left + 2) // UPSAMPLED, 0), min((right + 1) // UPSAMPLED, width - 1) + 1):
            x = UPSAMPLED * column + 2  # the step to the next x passes the middle
            if x < left or x >= right:
                continue
            if is_flat:
                y = min(int(y0 + slope * (x - x0) + 0.5), int(y0 + slope * (x + 1 - x0) + 0.5))
            else:
                y = y0 + _steps_before(x0, slope, x, y1 - y0)
            columns[number] = column
            rows[number] = int(min(max(np.ceil((y + 0.5) / UPSAMPLED - 0.5), 0.0), height))
            number += 1
    return _in_order(columns[:number], rows[:number], height, width, switches)


@compiled
def _steps_before(start: int, slope: float, x: int, steps: int) -> int:
    """The steps along y that a steep edge makes on its first side of the middle between x and the next x."""
    is_right = slope > 0
    step = int((x + 0.5 - start) / slope)
    step = min(max(step, 0), steps)
    while step > 0 and (int(start + slope * step + 0.5) > x) == is_right:
        step -= 1
    while step < steps and (int(start + slope * (step + 1) + 0.5) > x) != is_right:
        step += 1
    return step


@compiled
def _in_order(columns: np.ndarray, rows: np.ndarray, height: int, width: int, switches: np.ndarray) -> int:
    """Write switches, rising, without those that undo each other, and return how many are left."""
    if not columns.size:
        return 0
    first = columns.min()
    ends = np.cumsum(np.bincount(columns - first))
    for i in range(columns.size):
        ends[columns[i] - first] -= 1
        switches[ends[columns[i] - first]] = columns[i] * height + rows[i]
    for i in range(1, columns.size):  # in place but for those of one column
        own, k = switches[i], i
        while k > 0 and switches[k - 1] > own:
            switches[k] = switches[k - 1]
            k -= 1
        switches[k] = own
    kept = 0
    for i in range(columns.size):
        if kept and switches[kept - 1] == switches[i]:
            kept -= 1
        else:
            switches[kept] = switches[i]
            kept += 1
    if kept % 2:
        switches[kept] = height * width
        kept += 1
    return kept


@compiled
def shared_pixels(a: Runs, i: int, b: Runs, j: int) -> int:
    """How many pixels mask i of ``a`` and mask j of ``b`` have in common; runs are walked where boxes meet."""
    box, other = a.boxes[i], b.boxes[j]
    if box[0] >= other[2] or other[0] >= box[2] or box[1] >= other[3] or other[1] >= box[3]:  # an empty mask's, too
        return 0
    first, second = a.switches[a.starts[i] : a.starts[i + 1]], b.switches[b.starts[j] : b.starts[j + 1]]
    total, k, m = 0, np.searchsorted(first[1::2], second[0]) * 2, np.searchsorted(second[1::2], first[0]) * 2
    while k < first.size and m < second.size:
        total += max(min(first[k + 1], second[m + 1]) - max(first[k], second[m]), 0)
        if first[k + 1] < second[m + 1]:
            k += 2
        else:
            m += 2
    return total


def mask_nms(masks: Sequence[Any], size: tuple[int, int], scores: Any, labels: Any, iou: float) -> np.ndarray:
    """Non-maximum suppression by mask: of two of one class that overlap by more, the one of the lower score goes.

    Args:
        masks: N segmentations of one image, see :func:`runs_of`.
        size: Its height and width.
        scores: ``(N,)`` array; of equal ones the first counts as higher.
        labels: ``(N,)`` integer array.
        iou: From 0 to 1; with 1 all stay.

    Returns:
        ``(K,) int64``, those that stay, in their order.

    Raises:
        InputError: The IoU is not from 0 to 1, or a mask is of another size.
    """
    if not 0 <= iou <= 1:
        raise InputError(f'mask_nms must be an IoU from 0 to 1, got {iou!r}')
    order = np.argsort(-np.asarray(scores), kind='stable')
    stays = np.zeros(len(order), np.bool_)
    _suppress(runs_of(masks, [size] * len(masks)), order, np.asarray(labels), float(iou), stays)
    return np.flatnonzero(stays)


@compiled
def _suppress(masks: Runs, order: np.ndarray, labels: np.ndarray, limit: float, stays: np.ndarray) -> None:
    for i in range(order.size):
        a = order[i]
        stays[a] = True
        for b in order[:i]:
            if stays[b] and labels[a] == labels[b]:
                shared = shared_pixels(masks, a, masks, b)
                if shared > limit * (masks.areas[a] + masks.areas[b] - shared):
                    stays[a] = False
                    break
