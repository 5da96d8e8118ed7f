"""Non-maximum suppression, greedy and soft."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled
from armbench_mmdet.ops.backend import choose_backend, wide

BLOCK = 1024
"""Boxes compared with all others at once by the torch backend."""


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the ``(N, M)`` IoU of boxes ``(N, 4)`` and ``(M, 4)``; NaN where both are empty."""
    x1, y1, x2, y2 = first.T[..., None]
    other_x1, other_y1, other_x2, other_y2 = second.T
    width = (torch.minimum(x2, other_x2) - torch.maximum(x1, other_x1)).clamp(min=0)
    height = (torch.minimum(y2, other_y2) - torch.maximum(y1, other_y1)).clamp(min=0)
    inner = width * height
    areas = (x2 - x1) * (y2 - y1)
    other_areas = (other_x2 - other_x1) * (other_y2 - other_y1)
    return inner / (areas + other_areas - inner)


def _kept_torch(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Return ``(N,) bool``, which of the boxes, best first, survive.

    The greedy rule "kept unless a better kept box overlaps" is iterated to its fixed point, which is unique and reached
    after as many rounds as the longest chain of suppressions: few matrix operations, where a loop over boxes would
    launch thousands.
    """
    blocks = [_overlaps(block, boxes) > iou_threshold for block in boxes.split(BLOCK)]
    suppresses = torch.cat(blocks).triu(1)  # a row its columns; only better boxes suppress worse ones
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while not torch.equal(kept, settled := ~(suppresses & kept[:, None]).any(0)):
        kept = settled
    return kept


def _check(boxes: Tensor, scores: Tensor, offset: int, operator: str) -> None:
    if offset:
        raise InputError(
            f'offset must be 0, got {offset!r} (in {operator}); boxes that include their last pixel are not provided '
            'without compiling mmcv'
        )
    unordered = torch.cat([boxes, scores[:, None].to(boxes)], 1).isnan()  # at once: a GPU is waited for each time
    if unordered.any():
        raise InputError(
            f'boxes and scores must be free of NaN, got {int(unordered[:, :4].sum())} and {int(unordered[:, 4].sum())} '
            f'(in {operator}); the model that computed them has most likely diverged'
        )


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Return the boxes that no better kept box overlaps by more than a threshold.

    Boxes of equal score are taken in the order in which ``torch.sort`` puts them, as in the compiled operator. Sizes
    may be zero or negative; areas are computed as there, ``(x2 - x1) * (y2 - y1)``.

    Args:
        boxes: ``(N, 4)``, x1 y1 x2 y2; half precision is computed in single precision.
        scores: ``(N,)``.
        iou_threshold: The largest IoU that two kept boxes may have; rounded to the precision of the boxes.
        offset: 0, for coordinates of edges.

    Returns:
        ``(K,) int64``, indices of kept boxes, best first.

    Raises:
        InputError: There is a NaN, or the offset is not 0.
    """
    _check(boxes, scores, offset, 'nms')
    order = scores.detach().sort(descending=True).indices
    ordered = wide(boxes)[order]
    threshold = torch.tensor(iou_threshold, dtype=ordered.dtype).item()
    backend = choose_backend('nms', boxes.device)
    if backend == 'torchvision':
        # It sorts too, and differently among equal scores; ranks have none.
        ranks = torch.arange(len(order), 0, -1, dtype=ordered.dtype, device=boxes.device)
        return order[torch.ops.torchvision.nms(ordered, ranks, threshold)]
    if backend == 'numba':
        corners = ordered.T.contiguous().numpy()
        kept = torch.from_numpy(kept_boxes(corners, corners.dtype.type(threshold)))
    else:
        kept = _kept_torch(ordered, threshold)
    return order[kept]


@compiled
def kept_boxes(corners: NDArray[np.floating], threshold: np.floating) -> NDArray[np.bool_]:
    """Return which boxes survive.

    Args:
        corners: ``(4, N)``, rows x1 y1 x2 y2, boxes best first.
        threshold: Scalar of the same dtype.

    Returns:
        ``(N,) bool``.
    """
    x1, y1, x2, y2 = corners[0], corners[1], corners[2], corners[3]
    areas = (x2 - x1) * (y2 - y1)
    zero = threshold - threshold
    kept = np.ones(areas.size, np.bool_)
    for i in range(areas.size):
        if not kept[i]:
            continue
        for j in range(i + 1, areas.size):
            width = max(min(x2[i], x2[j]) - max(x1[i], x1[j]), zero)
            height = max(min(y2[i], y2[j]) - max(y1[i], y1[j]), zero)
            inner = width * height
            kept[j] &= not inner / (areas[i] + areas[j] - inner) > threshold
    return kept


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Take the best box again and again, and lower the scores of those that it overlaps (Soft-NMS, arXiv 1704.04503).

    Args:
        boxes: ``(N, 4)``, as for :func:`nms`, like the scores and the offset.
        scores: ``(N,)``.
        dets: Overwritten, ``(N, 5)``: the first K rows with the boxes taken and their lowered scores.
        iou_threshold: Methods 0 and 1 leave scores below this IoU alone.
        sigma: Of method 2.
        min_score: Boxes whose score falls below are dropped.
        method: What a score is multiplied by: 0 by zero, 1 by ``1 - IoU``, 2 by ``exp(-IoU² / sigma)``.
        offset: 0.

    Returns:
        ``(K,) int64``, indices of the boxes taken, in order.
    """
    _check(boxes, scores, offset, 'softnms')
    lowered, waiting = scores.detach().clone(), torch.arange(len(boxes))
    taken: list[int] = []
    while len(waiting):
        best = waiting[lowered[waiting].argmax()]
        taken.append(int(best))
        waiting = waiting[waiting != best]
        overlaps = _overlaps(boxes[best][None], boxes[waiting])[0].nan_to_num(0)
        if method == 2:
            factors = torch.exp(-(overlaps**2) / sigma)
        else:
            factors = torch.where(overlaps >= iou_threshold, 1 - overlaps if method == 1 else 0, 1)
        lowered[waiting] *= factors
        waiting = waiting[lowered[waiting] >= min_score]
    kept = torch.tensor(taken, dtype=torch.int64)
    dets[: len(kept)] = torch.cat([boxes[kept], lowered[kept, None]], 1)
    return kept
