"""Parts of torchvision's Mask R-CNN that compute otherwise than mmdet's: anchors, matching, proposals, boxes, masks."""

from typing import Any

import torch
from mmcv.ops import nms, roi_align
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from armbench_mmdet.masks.upsample import resized_axis
from armbench_mmdet.models.mask_rcnn import RleFCNMaskHead, SparseRPNHead


@TASK_UTILS.register_module()
class TorchvisionAnchorGenerator(AnchorGenerator):
    """Anchors of whole pixels, as far apart as whole pixels divide the padded image among a level's cells.

    At the coarsest level that is less than its stride: 800 px are 13 cells of 61 px there. All count in training, those
    on the padding too.
    """

    def gen_base_anchors(self) -> list[Tensor]:
        """A tensor ``(ratios, 4)`` a level, around the origin."""
        return [anchors.round() for anchors in super().gen_base_anchors()]

    def grid_priors(
        self, featmap_sizes: list[tuple[int, int]], dtype: torch.dtype = torch.float32, device: Any = 'cuda'
    ) -> list[Tensor]:
        """A tensor ``(cells · ratios, 4)`` a level; the finest level's stride must divide the padded image."""
        step_x, step_y = self.strides[0]
        height, width = featmap_sizes[0][0] * step_y, featmap_sizes[0][1] * step_x
        levels = []
        for anchors, (rows, columns) in zip(self.base_anchors, featmap_sizes, strict=True):
            y = torch.arange(rows, device=device) * (height // rows)
            x = torch.arange(columns, device=device) * (width // columns)
            y, x = torch.meshgrid(y, x, indexing='ij')
            corners = torch.stack([x, y, x, y], -1).view(-1, 1, 4).to(dtype)
            levels.append((corners + anchors.to(device, dtype)).view(-1, 4))
        return levels

    def valid_flags(self, featmap_sizes: list[tuple[int, int]], pad_shape: tuple, device: Any = 'cuda') -> list[Tensor]:
        """All of them."""
        levels = zip(featmap_sizes, self.num_base_anchors, strict=True)
        counts = [rows * columns * anchors for (rows, columns), anchors in levels]
        return [torch.ones(count, dtype=torch.bool, device=device) for count in counts]


@TASK_UTILS.register_module()
class BestMatchAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` by which an anchor that is some object's best belongs to the object that it overlaps most."""

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign ``(objects, anchors)`` overlaps."""
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if overlaps.numel():
            positive = result.gt_inds > 0
            best = overlaps.argmax(0)[positive]
            result.gt_inds[positive] = best + 1
            result.labels[positive] = gt_labels[best]
        return result


@MODELS.register_module()
class TorchvisionRPNHead(SparseRPNHead):
    """RPN head with NMS for each level by itself; to keep levels apart by an offset moves boxes by its rounding."""

    def _bbox_post_process(
        self, results: InstanceData, cfg: Any, rescale: bool = False, with_nms: bool = True, img_meta: Any = None
    ) -> InstanceData:
        sizes = results.bboxes[:, 2:] - results.bboxes[:, :2]
        results = results[(sizes >= cfg.min_bbox_size).all(1)]
        kept = []
        for level in results.level_ids.unique():
            of_level = (results.level_ids == level).nonzero().squeeze(1)
            kept.append(of_level[nms(results.bboxes[of_level], results.scores[of_level], cfg.nms.iou_threshold)[1]])
        chosen = torch.cat(kept) if kept else results.level_ids
        best = results.scores[chosen].sort(descending=True, stable=True).indices[: cfg.max_per_img]
        results = results[chosen[best]]
        results.labels = torch.zeros_like(results.level_ids)
        del results.level_ids
        return results


@MODELS.register_module()
class TorchvisionBBoxHead(Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` without the boxes of which next to nothing is inside the image."""

    min_size_px = 1e-2

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_meta: dict,
        rescale: bool = False,
        rcnn_test_cfg: Any = None,
    ) -> InstanceData:
        raw = super()._predict_by_feat_single(roi, cls_score, bbox_pred, img_meta, rescale=rescale)
        if rcnn_test_cfg is None or not len(roi):
            return raw
        boxes = raw.bboxes.view(len(roi), -1, 4)
        scale = boxes.new_tensor(img_meta['scale_factor'] if rescale else (1, 1))
        is_small = ((boxes[..., 2:] - boxes[..., :2]) * scale < self.min_size_px).any(-1)
        scores = raw.scores.clone()
        scores[:, :-1][is_small] = 0
        cfg = rcnn_test_cfg
        found, labels = multiclass_nms(raw.bboxes, scores, cfg.score_thr, cfg.nms, cfg.max_per_img)
        return InstanceData(bboxes=found[:, :4], scores=found[:, 4], labels=labels)


@MODELS.register_module()
class TorchvisionMaskHead(RleFCNMaskHead):
    """``RleFCNMaskHead`` that pastes masks at whole pixels, and learns from what a target cell is covered by."""

    axis = staticmethod(resized_axis)

    def get_targets(
        self, sampling_results: list[SamplingResult], batch_gt_instances: InstanceList, rcnn_train_cfg: Any
    ) -> Tensor:
        """Shares of coverage, ``(positives, size, size)`` from 0 to 1, where the stock head has 0 or 1."""
        targets = []
        for result, truth in zip(sampling_results, batch_gt_instances, strict=True):
            boxes, size = result.pos_priors, rcnn_train_cfg.mask_size
            masks = torch.from_numpy(truth.masks.to_ndarray()).to(boxes.device)[:, None].to(boxes)  # bytes move faster
            rois = torch.cat([result.pos_assigned_gt_inds[:, None].to(boxes), boxes], 1)
            targets.append(roi_align(masks, rois, (size, size), 1.0, 0, 'avg', False)[:, 0])
        return torch.cat(targets)
