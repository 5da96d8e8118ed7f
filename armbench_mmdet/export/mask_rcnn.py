"""Mask R-CNN's prediction with fixed shapes: mmdet's own parts, and between them NMS and RoIAlign as ONNX has them."""

from collections.abc import Sequence
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor, nn

op: Any = opset18  # its signatures know no lists
LIBRARY = torch.library.Library('armbench', 'DEF')
LIBRARY.define('nms(Tensor boxes, Tensor scores, float iou_threshold, int limit) -> Tensor')
LIBRARY.define('roi_align(Tensor[] features, Tensor rois, Tensor levels, float[] scales, int size) -> Tensor')
OPERATORS: Any = torch.ops.armbench
"""Operators that are only traced.

- ``nms``: places ``(K,) int64`` of the best ``limit`` of boxes ``(N, 4)`` that no better kept box overlaps by more than
  a threshold, the best first; a box with a score ``(N,)`` of 0 or less is not there.
- ``roi_align``: ``(N, C, size, size)`` from features ``(1, C, H, W)`` of each level, with ``scales`` feature pixels a
  pixel, and RoIs ``(N, 4)`` in pixels, each on its level; aligned, with as many samples as a bin has pixels.
"""


@torch.library.register_fake('armbench::nms')
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(min=1), dtype=torch.int64)


@torch.library.register_fake('armbench::roi_align')
def _(features: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], size: int) -> Tensor:
    return rois.new_empty(rois.shape[0], features[0].shape[1], size, size)


def _nms_in_onnx(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
    batched = op.Unsqueeze(boxes, [0]), op.Unsqueeze(scores, [0, 1])
    return op.Gather(op.NonMaxSuppression(*batched, [limit], [iou_threshold], [0.0]), 2, axis=1)


def _roi_align_in_onnx(features: Sequence[Any], rois: Any, levels: Any, scales: Sequence[float], size: int) -> Any:
    channels, bins = op.Shape(features[0], start=1, end=2), op.Constant(value_ints=[size, size])
    pooled = op.Expand(op.Constant(value_float=0.0), op.Concat(op.Shape(levels), channels, bins, axis=0))
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        places = op.Transpose(op.NonZero(op.Equal(levels, level)), perm=[1, 0])  # (K, 1)
        image = op.Squeeze(op.Mul(places, 0), [1])
        sizes = {'output_height': size, 'output_width': size, 'spatial_scale': scale}
        pooled = op.ScatterND(pooled, places, op.RoiAlign(feature, op.GatherND(rois, places), image, **sizes))
    return pooled


TRANSLATIONS = {OPERATORS.nms.default: _nms_in_onnx, OPERATORS.roi_align.default: _roi_align_in_onnx}


def mask_rcnn(model: Any, pixels: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """The best instances of an image, as ``MaskRCNN.predict`` computes them, if its head is not class-agnostic.

    Args:
        model: mmdet's.
        pixels: ``(1, 3, H, W)``, normalised and padded.
        size: Height and width of the image without padding.

    Returns:
        The outputs of the file, see docs/export.md.
    """
    features, head, cfg = model.extract_feat(pixels), model.roi_head, model.test_cfg.rcnn
    proposals = _proposals(model, features, size)
    logits, shifts = head.bbox_head(_pooled(head.bbox_roi_extractor, features, proposals))
    classes = head.bbox_head.num_classes
    chances = logits.softmax(-1)[:, :classes]
    chances = torch.where(chances > cfg.score_thr, chances, -1)
    priors = proposals.repeat_interleave(classes, dim=0)
    decoded = head.bbox_head.bbox_coder.decode(priors, shifts.reshape(-1, 4), max_shape=size)
    kinds = torch.arange(classes).repeat(proposals.shape[0])
    boxes, scores, labels = _best(decoded, chances.reshape(-1), kinds, cfg)
    logits = head.mask_head(_pooled(head.mask_roi_extractor, features, boxes))
    masks = logits[torch.arange(labels.shape[0]), labels].sigmoid()
    return {'boxes': boxes, 'scores': scores, 'labels': labels, 'masks': masks}


def _proposals(model: Any, features: Any, size: tuple[int, int]) -> Tensor:
    """The best boxes of the RPN, ``(P, 4)``."""
    head, cfg = model.rpn_head, model.test_cfg.rpn
    all_logits, all_deltas = head(features)
    anchors = head.prior_generator.grid_priors([one.shape[-2:] for one in all_logits], device=features[0].device)
    scores, boxes, levels = [], [], []
    for level, (logits, deltas, priors) in enumerate(zip(all_logits, all_deltas, anchors, strict=True)):
        own = logits[0].permute(1, 2, 0).reshape(-1).sigmoid()
        shifts = deltas[0].permute(1, 2, 0).reshape(-1, 4)
        if 0 < cfg.nms_pre < own.shape[0]:
            own, best = own.topk(cfg.nms_pre)
            shifts, priors = shifts[best], priors[best]
        scores.append(own)
        boxes.append(head.bbox_coder.decode(priors, shifts, max_shape=size))
        levels.append(torch.full_like(own, level))
    decoded = torch.cat(boxes)
    there = (decoded[:, 2:] - decoded[:, :2] > cfg.get('min_bbox_size', -1)).all(1)
    return _best(decoded, torch.where(there, torch.cat(scores), -1), torch.cat(levels), cfg)[0]


def _pooled(extractor: Any, features: Any, boxes: Tensor) -> Tensor:
    layers = extractor.roi_layers
    levels = extractor.map_roi_levels(nn.functional.pad(boxes, (1, 0)), len(layers))
    scales = [layer.spatial_scale for layer in layers]
    return OPERATORS.roi_align(features[: len(layers)], boxes, levels, scales, layers[0].output_size[0])


def _best(boxes: Tensor, scores: Tensor, kinds: Tensor, cfg: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and kinds of the best after NMS within each kind."""
    # As in mmcv's batched_nms, so that the same roundings decide: each kind on a ground of its own.
    ground = kinds.to(boxes) * (torch.where(scores[:, None] > 0, boxes, 0).max() + 1)
    kept = OPERATORS.nms(boxes + ground[:, None], scores, cfg.nms.iou_threshold, cfg.max_per_img)
    return boxes[kept], scores[kept], kinds[kept]
