"""Mask R-CNN's heads: the RPN with sparse gradients, and the mask head with run lengths for its predictions."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmdet.utils import InstanceList, OptInstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from armbench_mmdet.masks.encode import RleMasks
from armbench_mmdet.masks.runs import mask_nms
from armbench_mmdet.masks.upsample import encode_boxed_masks, pasted_pixels
from armbench_mmdet.models.resnet import pixel_by_pixel


@MODELS.register_module()
class SparseRPNHead(RPNHead):
    """mmdet's :class:`RPNHead`, of the same weights, outputs and gradients, with faster training.

    The loss samples 256 anchors an image; at all others loss and gradients are zero, and the stock computes them: on a
    full-size image at some 70,000 places. The gradients, a sixth of the model's training step, are left out on CPUs.

    Args:
        **kwargs: As for the stock head.
    """

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B, A, H, W)`` and box deltas ``(B, 4 * A, H, W)`` of one level's features ``(B, C, H, W)``."""
        is_stock = x.device.type != 'cpu' or not torch.is_grad_enabled() or not isinstance(self.rpn_conv, nn.Conv2d)
        if is_stock:
            return super().forward_single(x)
        layers = (self.rpn_conv, self.rpn_cls, self.rpn_reg)
        return _SparseGradients.apply(x, *(tensor for layer in layers for tensor in (layer.weight, layer.bias)))

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """The losses of all levels, which the stock computes one by one, at the anchors that were sampled.

        Args:
            cls_scores: Of each level, ``(B, A, H, W)``.
            bbox_preds: Of each level, ``(B, 4 * A, H, W)``.
            batch_gt_instances: ``bboxes`` and ``labels`` of each image.
            batch_img_metas: Meta information of each image.
            batch_gt_instances_ignore: ``bboxes`` that are neither objects nor background.
        """
        if self.reg_decoded_bbox:  # targets are boxes, no deltas
            return super().loss_by_feat(
                cls_scores, bbox_preds, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
            )
        sizes = [scores.shape[2:] for scores in cls_scores]
        anchors = self.get_anchors(sizes, batch_img_metas, device=cls_scores[0].device)
        *of_levels, number = self.get_targets(*anchors, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore)
        labels, weights, targets, target_weights = (torch.cat(levels, 1).flatten(0, 1) for levels in of_levels)
        sampled = weights.nonzero().squeeze(1)

        def chosen(levels: list[Tensor], width: int) -> Tensor:
            flat = [level.movedim(1, 3).reshape(len(level), -1, width) for level in levels]
            return torch.cat(flat, 1).flatten(0, 1)[sampled]

        scores, deltas = chosen(cls_scores, self.cls_out_channels), chosen(bbox_preds, self.bbox_coder.encode_size)
        return {
            'loss_rpn_cls': self.loss_cls(scores, labels[sampled], weights[sampled], avg_factor=number),
            'loss_rpn_bbox': self.loss_bbox(deltas, targets[sampled], target_weights[sampled], avg_factor=number),
        }


class _SparseGradients(torch.autograd.Function):
    """The head's three convolutions; backward they are linear layers over the places that have a gradient."""

    @staticmethod
    @torch.amp.custom_fwd(device_type='cpu')
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, *weights)
        weight, bias, *outputs = weights
        hidden = F.conv2d(pixel_by_pixel(x), weight, bias, padding=1).relu_()
        scores, deltas = (F.conv2d(hidden, outputs[i], outputs[i + 1]).contiguous() for i in (0, 2))
        return scores, deltas

    @staticmethod
    @torch.amp.custom_bwd(device_type='cpu')
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, *weights = ctx.saved_tensors
        image, row, column = torch.where(torch.cat(gradients, 1).ne(0).any(1))
        steps = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
        rows, columns = row[:, None] + steps[:, 0], column[:, None] + steps[:, 1]
        is_inside = ((rows >= 0) & (rows < x.shape[2]) & (columns >= 0) & (columns < x.shape[3]))[..., None]
        cells = image[:, None].expand_as(rows), rows.clamp(0, x.shape[2] - 1), columns.clamp(0, x.shape[3] - 1)
        leaves = [(x.movedim(1, 3)[cells] * is_inside), *(one.detach() for one in weights)]
        with torch.enable_grad():
            patches, weight, bias, *outputs = (leaf.requires_grad_() for leaf in leaves)
            hidden = F.linear(patches.flatten(1), weight.movedim(1, 3).flatten(1), bias).relu()
            found = [F.linear(hidden, outputs[i].flatten(1), outputs[i + 1]) for i in (0, 2)]
        at_places = [gradient.movedim(1, 3)[image, row, column] for gradient in gradients]
        of_patches, *of_weights = torch.autograd.grad(found, leaves, at_places)
        of_x = torch.zeros_like(x)
        of_x.movedim(1, 3).index_put_(cells, of_patches * is_inside, accumulate=True)
        # In the weights' own strides, as distributed training expects.
        return of_x, *(torch.empty_like(one).copy_(of) for one, of in zip(weights, of_weights, strict=True))


@MODELS.register_module()
class RleFCNMaskHead(FCNMaskHead):
    """``FCNMaskHead`` whose ``pred_instances.masks`` are :class:`~armbench_mmdet.masks.encode.RleMasks`.

    The masks are those of ``FCNMaskHead`` but for pixels within 1e-4 of the threshold; training and the state dict are
    unchanged. Stock pastes each mask into a bitmap of the whole image, which the metric then encodes: at 2448×2048 with
    100 masks, 500 MB and more than a second an image. In a config: ``mask_head=dict(type='RleFCNMaskHead')``.

    ``model.test_cfg.rcnn.mask_nms``, an IoU, asks for :func:`~armbench_mmdet.masks.runs.mask_nms` after the masks are
    made: boxes of touching objects overlap much, their masks hardly.
    """

    axis = staticmethod(pasted_pixels)
    """The rule of pasting, see :func:`~armbench_mmdet.masks.upsample.encode_boxed_masks`."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, h, w)`` of RoIs, see the stock head."""
        return super().forward(pixel_by_pixel(x))

    def predict_by_feat(
        self,
        mask_preds: tuple[Tensor],
        results_list: list[InstanceData],
        batch_img_metas: list[dict],
        rcnn_test_cfg: Any,
        *args: Any,
        **kwargs: Any,
    ) -> list[InstanceData]:
        """The instances of each image with their masks, as in ``FCNMaskHead``.

        Raises:
            InputError: ``mask_nms`` is no IoU.
        """
        results: list[InstanceData] = super().predict_by_feat(
            mask_preds, results_list, batch_img_metas, rcnn_test_cfg, *args, **kwargs
        )
        iou = rcnn_test_cfg.get('mask_nms')
        for i, one in enumerate(results):
            if iou is not None and len(one):
                size, scores, labels = one.masks.shape[1:], one.scores.cpu().numpy(), one.labels.cpu().numpy()
                results[i] = one[mask_nms(one.masks, size, scores, labels, iou)]
        return results

    def _predict_by_feat_single(
        self,
        mask_preds: Tensor,
        bboxes: Tensor,
        labels: Tensor,
        img_meta: dict,
        rcnn_test_cfg: Any,
        rescale: bool = False,
        activate_map: bool = False,
    ) -> Any:
        """Masks of one image from the head's logits.

        Args:
            mask_preds: ``(N, num_classes, h, w)`` logits.
            bboxes: ``(N, 4)`` xyxy at the scale of the network's input; brought to the image's scale in place if
                ``rescale``, on which the caller relies.
            labels: ``(N,)``.
            img_meta: With ``scale_factor`` (w, h) and ``ori_shape`` (H, W).
            rcnn_test_cfg: With ``mask_thr_binary``; below 0 it asks for grey values, which stock gives.
            rescale: Whether masks are wanted at the image's own scale.
            activate_map: Whether ``mask_preds`` are probabilities already.
        """
        if rcnn_test_cfg.mask_thr_binary < 0:
            return super()._predict_by_feat_single(
                mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale, activate_map
            )
        scale_factor = bboxes.new_tensor(img_meta['scale_factor']).repeat((1, 2))
        height, width = img_meta['ori_shape'][:2]
        probabilities = bboxes.new_tensor(mask_preds) if activate_map else mask_preds.sigmoid()
        if rescale:
            bboxes /= scale_factor
        else:
            width_scale, height_scale = scale_factor[0, 0].item(), scale_factor[0, 1].item()
            height, width = int(np.round(height * height_scale)), int(np.round(width * width_scale))
        rows = range(len(probabilities))
        chosen = probabilities[:, 0] if self.class_agnostic else probabilities[rows, labels]
        rles = encode_boxed_masks(chosen, bboxes, height, width, rcnn_test_cfg.mask_thr_binary, self.axis)
        return RleMasks(rles, height, width)
