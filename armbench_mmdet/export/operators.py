"""NMS and RoIAlign as operators of fixed output shapes, with their translation to ONNX."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmcv.ops import nms, roi_align
from onnxscript import opset18
from torch import Tensor

op: Any = opset18  # its signatures know no lists


@torch.library.custom_op('armbench::suppressed', mutates_args=())
def suppressed(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Scores without those of boxes that a better kept box overlaps by more than a threshold.

    Args:
        boxes: ``(N, 4)``, x1, y1, x2, y2.
        scores: ``(N,)``; a box with a score of 0 or less is not there.
        iou_threshold: The largest IoU that two kept boxes may have.
        limit: The most boxes kept.

    Returns:
        ``(N,)``, 0 for boxes that are not kept.
    """
    kept = torch.zeros_like(scores)
    there = (scores > 0).nonzero()[:, 0]
    if len(there):
        best = there[nms(boxes[there], scores[there], iou_threshold)[1][:limit]]
        kept[best] = scores[best]
    return kept


@suppressed.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores)


@torch.library.custom_op('armbench::pyramid_roi_align', mutates_args=())
def pyramid_roi_align(
    features: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], size: int
) -> Tensor:
    """RoIAlign, aligned and with as many samples as a bin has pixels, each RoI on a level of its own.

    Args:
        features: Of each level, ``(1, C, H, W)``.
        rois: ``(N, 4)``, x1, y1, x2, y2 in input pixels.
        levels: ``(N,) int64``.
        scales: Feature pixels per input pixel of each level.
        size: Bins on each axis.

    Returns:
        ``(N, C, size, size)``.
    """
    pooled = rois.new_zeros(len(rois), features[0].shape[1], size, size)
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        own = (levels == level).nonzero()[:, 0]
        if len(own):
            indexed = torch.cat([rois.new_zeros(len(own), 1), rois[own]], 1)
            pooled[own] = roi_align(feature, indexed, (size, size), scale, 0, 'avg', True)
    return pooled


@pyramid_roi_align.register_fake
def _(features: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], size: int) -> Tensor:
    return rois.new_empty(rois.shape[0], features[0].shape[1], size, size)


def _nms_in_onnx(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
    batched = op.Unsqueeze(boxes, [0]), op.Unsqueeze(scores, [0, 1])
    places = op.Gather(op.NonMaxSuppression(*batched, [limit], [iou_threshold], [0.0]), [2], axis=1)  # (K, 1)
    return op.ScatterND(op.Mul(scores, 0.0), places, op.GatherND(scores, places))


def _roi_align_in_onnx(features: Sequence[Any], rois: Any, levels: Any, scales: Sequence[float], size: int) -> Any:
    channels, bins = op.Shape(features[0], start=1, end=2), op.Constant(value_ints=[size, size])
    pooled = op.Expand(op.Constant(value_float=0.0), op.Concat(op.Shape(levels), channels, bins, axis=0))
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        places = op.Transpose(op.NonZero(op.Equal(levels, level)), perm=[1, 0])  # (K, 1)
        image = op.Squeeze(op.Mul(places, 0), [1])
        sizes = {'output_height': size, 'output_width': size, 'spatial_scale': scale}
        pooled = op.ScatterND(pooled, places, op.RoiAlign(feature, op.GatherND(rois, places), image, **sizes))
    return pooled


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.armbench.suppressed.default: _nms_in_onnx,
    torch.ops.armbench.pyramid_roi_align.default: _roi_align_in_onnx,
}
"""For the ``custom_translation_table`` of ``torch.onnx.export``."""
