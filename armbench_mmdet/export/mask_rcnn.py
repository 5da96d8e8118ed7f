"""Mask R-CNN's prediction with fixed shapes: mmdet's own parts, and what lies between them without lists of boxes."""

from typing import Any

import torch
from torch import Tensor, nn

from armbench_mmdet.export.operators import pyramid_roi_align, suppressed


class MaskRCNNGraph(nn.Module):
    """From an input tensor to the best instances, as ``MaskRCNN.predict`` computes them.

    Args:
        model: mmdet's Mask R-CNN, with a standard RoI head that is not class-agnostic.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, height: int, width: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict one image.

        Args:
            pixels: ``(1, 3, H, W)``, normalised and padded.
            height: Of the image without padding.
            width: Of it.

        Returns:
            ``boxes`` ``(N, 4)`` in input pixels, ``scores`` ``(N,)`` falling, ``labels`` ``(N,)`` and ``masks``
            ``(N, h, w)``, probabilities within the boxes. And stages on the way.
        """
        features = self.model.extract_feat(pixels)
        proposals = self._proposals(features, (height, width))
        boxes, scores, labels = self._boxes(features, proposals, (height, width))
        head = self.model.roi_head
        logits = head.mask_head(_pooled(head.mask_roi_extractor, features, boxes))
        masks = logits[torch.arange(labels.shape[0]), labels].sigmoid()
        outputs = {'boxes': boxes, 'scores': scores, 'labels': labels, 'masks': masks}
        return outputs, {'features': features[0], 'proposals': proposals}

    def _proposals(self, features: Any, size: tuple[int, int]) -> Tensor:
        """The best boxes of the RPN, ``(P, 4)``; zeros where there are fewer."""
        head, cfg = self.model.rpn_head, self.model.test_cfg.rpn
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
        sides = decoded[:, 2:] - decoded[:, :2]
        there = (sides > cfg.get('min_bbox_size', -1)).all(1)
        chances = torch.where(there, torch.cat(scores), -1)
        return _best(decoded, chances, torch.cat(levels), cfg.nms.iou_threshold, cfg.max_per_img)[1]

    def _boxes(self, features: Any, proposals: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of the instances that are found."""
        head, cfg = self.model.roi_head, self.model.test_cfg.rcnn
        there = proposals[:, 2] > proposals[:, 0]
        logits, shifts = head.bbox_head(_pooled(head.bbox_roi_extractor, features, proposals))
        classes = head.bbox_head.num_classes
        chances = logits.softmax(-1)[:, :classes]
        chances = torch.where(there[:, None] & (chances > cfg.score_thr), chances, -1)
        priors, coder = proposals.repeat_interleave(classes, dim=0), head.bbox_head.bbox_coder
        decoded = coder.decode(priors, shifts.reshape(-1, 4), max_shape=size)
        kinds = torch.arange(classes).expand(len(proposals), classes).reshape(-1)
        scores, boxes, labels = _best(decoded, chances.reshape(-1), kinds, cfg.nms.iou_threshold, cfg.max_per_img)
        found = (scores > 0).nonzero()[:, 0]
        return boxes[found], scores[found], labels[found]


def _pooled(extractor: Any, features: Any, boxes: Tensor) -> Tensor:
    layers = extractor.roi_layers
    levels = extractor.map_roi_levels(nn.functional.pad(boxes, (1, 0)), len(layers))
    scales = [layer.spatial_scale for layer in layers]
    return pyramid_roi_align(features[: len(layers)], boxes, levels, scales, layers[0].output_size[0])


def _best(boxes: Tensor, scores: Tensor, kinds: Tensor, iou_threshold: float, limit: int) -> tuple[Tensor, ...]:
    """Scores, boxes and kinds of the best after NMS within each kind, zeros where there are fewer than ``limit``."""
    there = scores > 0
    # As in mmcv's batched_nms, so that the same roundings decide: each kind on a ground of its own.
    ground = kinds.to(boxes) * (torch.where(there[:, None], boxes, 0).max() + 1)
    kept = suppressed(boxes + ground[:, None], scores, iou_threshold, limit)
    best, order = kept.topk(min(limit, scores.shape[0]))
    return best, torch.where(best[:, None] > 0, boxes[order], 0), kinds[order]
