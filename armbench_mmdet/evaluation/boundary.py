"""Boundary IoU (Cheng et al., CVPR 2021): of masks or of their bands along the outline, whichever is less.

A mask without its band is its *core*, what erosion leaves; a core has no more in common with another mask than its
own mask, so that the pixels that two bands share are counted from masks and cores.
"""

import numpy as np

from armbench_mmdet.jit import compiled
from armbench_mmdet.masks.runs import Runs, shared_pixels

WIDTH = 0.02
"""Of the band, in diagonals of the image."""


def cores(masks: Runs, sizes: np.ndarray) -> Runs:
    """Masks without their bands, their boxes as they were.

    Args:
        masks: N masks.
        sizes: ``(N, 2) int64``, height and width of the image of each.
    """
    reaches = np.maximum(np.rint(WIDTH * np.hypot(*sizes.T)), 1).astype(np.int64)
    return Runs(*_cores(masks, sizes[:, 0], reaches), masks.boxes)


@compiled
def _cores(masks: Runs, heights: np.ndarray, reaches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Erode by squares: down the columns, then across by what two columns, four columns, … have in common."""
    switches, starts = np.empty(1024, np.int32), np.zeros_like(masks.starts)
    areas = np.zeros_like(masks.areas)
    for i in range(areas.size):
        height, reach, used = heights[i], reaches[i], starts[i]
        own = masks.switches[masks.starts[i] : masks.starts[i + 1]]
        columns = masks.boxes[i, 2] - masks.boxes[i, 0]
        room = 2 * columns * (height // (2 * reach + 1) + 1) if columns > 2 * reach else 0
        left, spare = np.empty(room, np.int32), np.empty(room, np.int32)
        count = _shrink(own, height, reach, left) if room else 0
        width = 1
        while count and width <= 2 * reach:
            step = min(width, 2 * reach + 1 - width)
            count = _meet(left[:count], step * height, spare)
            left, spare, width = spare, left, width + step
        if switches.size < used + count:
            switches = np.concatenate((switches, np.empty(switches.size + count, np.int32)))
        for k in range(count):
            switches[used + k] = left[k] - reach * height
            areas[i] += left[k] if k % 2 else -left[k]
        starts[i + 1] = used + count
    return switches[: starts[-1]].copy(), starts, areas


@compiled
def _shrink(switches: np.ndarray, height: int, reach: int, shrunk: np.ndarray) -> int:
    """Take so many pixels from both ends of each run of a column; return how many switches are left."""
    count = 0
    for i in range(0, switches.size, 2):
        start = switches[i]
        while start < switches[i + 1]:
            end = min(switches[i + 1], (start // height + 1) * height)
            if end - start > 2 * reach:
                shrunk[count], shrunk[count + 1] = start + reach, end - reach
                count += 2
            start = end
    return count


@compiled
def _meet(switches: np.ndarray, shift: int, met: np.ndarray) -> int:
    """Write what a mask has in common with itself moved on, and return how many switches that has."""
    count, i, j = 0, 0, 0
    while i < switches.size and j < switches.size:
        start, end = max(switches[i], switches[j] + shift), min(switches[i + 1], switches[j + 1] + shift)
        if start < end:
            met[count], met[count + 1] = start, end
            count += 2
        if switches[i + 1] < switches[j + 1] + shift:
            i += 2
        else:
            j += 2
    return count


@compiled
def lower(
    found: Runs,
    truth: Runs,
    found_cores: Runs,
    truth_cores: Runs,
    crowd: np.ndarray,
    near: np.ndarray,
    offsets: np.ndarray,
    ious: np.ndarray,
) -> None:
    """Lower IoUs of masks to those of their bands, but with crowds; see :class:`~.protocol.Common`."""
    for d in range(near.shape[0]):
        for g in range(near[d, 0], near[d, 1]):
            if ious[offsets[d] + g] > 0 and not crowd[g]:
                shared = shared_pixels(found, d, truth, g) + shared_pixels(found_cores, d, truth_cores, g)
                shared -= shared_pixels(found_cores, d, truth, g) + shared_pixels(found, d, truth_cores, g)
                whole = found.areas[d] - found_cores.areas[d] + truth.areas[g] - truth_cores.areas[g]
                ious[offsets[d] + g] = min(ious[offsets[d] + g], shared / (whole - shared))
