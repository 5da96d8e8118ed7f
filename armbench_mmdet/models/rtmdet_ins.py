"""RTMDet-Ins's head with run lengths for its predictions."""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import batched_nms
from mmdet.models.dense_heads.rtmdet_ins_head import RTMDetInsSepBNHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import scale_boxes
from mmengine.structures import InstanceData
from torch import Tensor

from armbench_mmdet.masks.encode import RleMasks
from armbench_mmdet.masks.upsample import upsample_masks


@MODELS.register_module()
class RleRTMDetInsSepBNHead(RTMDetInsSepBNHead):
    """``RTMDetInsSepBNHead`` whose ``pred_instances.masks`` are :class:`~armbench_mmdet.masks.encode.RleMasks`.

    Training and the state dict are the stock head's. Stock upsamples the logits of all masks to the photo's size at
    once: 2 GB at 2448×2048 with 100 masks. Here one mask at a time goes from the input's size to the photo's.
    """

    def _bbox_mask_post_process(
        self,
        results: InstanceData,
        mask_feat: Tensor,
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict | None = None,
    ) -> InstanceData:
        """Keep the best instances of one image, see the stock head.

        Args:
            results: N candidates with ``bboxes``, ``scores``, ``labels``, ``kernels`` and ``priors``.
            mask_feat: (prototypes, h, w) mask features at the first stride.
            cfg: ``test_cfg``.
            rescale: Whether boxes and masks are wanted at ``ori_shape`` instead of ``img_shape``.
            with_nms: As in the stock head, which cannot do without.
            img_meta: The image's meta information.
        """
        assert img_meta is not None
        height, width = img_meta['img_shape'][:2]
        size = tuple(img_meta['ori_shape'][:2]) if rescale else (height, width)
        if rescale:
            results.bboxes = scale_boxes(results.bboxes, [1 / factor for factor in img_meta['scale_factor']])
        sides = results.bboxes[:, 2:] - results.bboxes[:, :2]
        results = results[(sides > cfg.get('min_bbox_size', -1)).all(1)]
        if len(results):
            kept_boxes, kept = batched_nms(results.bboxes, results.scores, results.labels, cfg.nms)
            results = results[kept]
            results.scores = kept_boxes[:, -1]  # soft NMS changes them
            results = results[: cfg.max_per_img]
        stride = self.prior_generator.strides[0][0]
        # A threshold of probabilities other than a half is a shift of the logits.
        shift = torch.logit(mask_feat.new_tensor(cfg.mask_thr_binary))
        logits = [
            F.interpolate(one[None, None] - shift, scale_factor=stride, mode='bilinear')[0, 0, :height, :width]
            for one in self._mask_predict_by_feat_single(mask_feat, results.kernels, results.priors)
        ]
        results.masks = RleMasks([mask.rle for mask in upsample_masks(logits, size)], *size)
        return results
