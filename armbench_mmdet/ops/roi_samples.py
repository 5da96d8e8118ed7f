"""Where RoIAlign samples: the one computation in which a single bit decides, shared by the backends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EMPTY_MAXIMUM = -10000.0
"""What the maximum over no sample is, in the compiled operator; a maximum starts from here."""


class Bins(NamedTuple):
    """How an RoI is divided and sampled."""

    height: int
    width: int
    spatial_scale: float
    """Feature cells per pixel."""
    sampling_ratio: int
    """Samples per bin and axis; 0 for as many as the bin has cells, rounded up."""
    aligned: bool
    """Shift positions by half a cell, and accept RoIs smaller than one cell."""


def sample_positions(boxes: Tensor, axis: int, bins: Bins) -> tuple[Tensor, Tensor]:
    """Return sample positions along one axis.

    The operations and their order are those of the compiled operator, so that single precision gives the same bits.

    Args:
        boxes: ``(N, 5)``, image index and x1 y1 x2 y2 in pixels.
        axis: 0 for x, 1 for y.
        bins: How to divide the boxes.

    Returns:
        Positions in cells, ``(N, P, G)`` for P bins of at most G samples, NaN where a bin has fewer; and the samples
        per bin, ``(N,) int64``.
    """
    pooled = bins.width if axis == 0 else bins.height
    scale = float(np.float32(bins.spatial_scale))  # the compiled operator takes it in single precision
    shift = 0.5 if bins.aligned else 0.0
    start = boxes[:, 1 + axis] * scale - shift
    size = boxes[:, 3 + axis] * scale - shift - start
    bin_size = (size if bins.aligned else size.clamp(min=1)) / pooled
    counts = bin_size.ceil().long() if bins.sampling_ratio <= 0 else start.new_full((), bins.sampling_ratio).long()
    counts = counts.expand(len(boxes))
    index = torch.arange(pooled, dtype=boxes.dtype, device=boxes.device)[:, None]
    sample = torch.arange(int(counts.max()), dtype=boxes.dtype, device=boxes.device)
    start, bin_size, counts_column = start[:, None, None], bin_size[:, None, None], counts[:, None, None]
    within = (sample + 0.5) * bin_size / counts_column.to(boxes.dtype)
    positions = start + index * bin_size + within
    return positions.masked_fill(sample >= counts_column, torch.nan), counts


def inside(positions: Tensor, extent: int) -> Tensor:
    """Return which positions are interpolated at all; up to one cell beyond the map is, NaN is not."""
    return (positions >= -1) & (positions <= extent)


def corners(positions: Tensor, extent: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the cell before each position, the cell after it, and the weight of each; weight 0 outside the map."""
    clamped = positions.nan_to_num().clamp(min=0)
    low = clamped.long().clamp(max=extent - 1)
    high = (low + 1).clamp(max=extent - 1)
    fraction = torch.where(low < extent - 1, clamped - low, 0)
    counts = inside(positions, extent)
    return low, high, torch.where(counts, 1 - fraction, 0), torch.where(counts, fraction, 0)


def cells_around_maxima(at_y: Tensor, at_x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the cells that made each maximum, as indices into a channel's map, and their weights.

    A maximum at y = -1 is none at all, as in the compiled operator.

    Args:
        at_y: ``(N, C, P, Q)``, in cells, like the next.
        at_x: As ``at_y``.
        height: Of the map, in cells, like the next.
        width: As ``height``.

    Returns:
        ``(N, C, P, Q, 4) int64`` and ``(N, C, P, Q, 4)``, in row-major order of the cells.
    """
    top, bottom, above, below = corners(torch.where(at_y == -1, torch.nan, at_y), height)
    left, right, before, after = corners(at_x, width)
    cells = [row * width + column for row in (top, bottom) for column in (left, right)]
    weights = [row * column for row in (above, below) for column in (before, after)]
    return torch.stack(cells, -1), torch.stack(weights, -1)
