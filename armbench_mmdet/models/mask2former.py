"""Mask2Former heads: stable under mixed precision, bounded in memory, and its attention in less time and memory."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmcv.ops import point_sample
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention, MultiScaleDeformableAttnFunction
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.masks.encode import RleMasks
from armbench_mmdet.masks.upsample import upsample_masks
from armbench_mmdet.ops import STAND_IN_ACTIVE


@MODELS.register_module()
class BoundedMaskFormerFusionHead(MaskFormerFusionHead):
    """mmdet's :class:`MaskFormerFusionHead` with the same instances, without all masks at image size at once.

    The stock head upsamples every query to the image's size and then makes several arrays as large: 10 GB for 100
    queries at 2448×2048. Here only queries that are kept are upsampled, one at a time, each once even if it is kept
    under two labels, and masks leave as run lengths. Labels and their order equal the stock head's, and so do masks but
    for pixels within 1e-4 of a probability of a half. Panoptic results, where asked for, are the stock head's.
    """

    def predict(
        self,
        mask_cls_results: Tensor,
        mask_pred_results: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = False,
        **kwargs: Any,
    ) -> list[dict]:
        """Turn the last decoder layer's output into instances, see the stock head.

        Args:
            mask_cls_results: (B, Q, classes + 1) class logits.
            mask_pred_results: (B, Q, h, w) mask logits at the batch's input size.
            batch_data_samples: B data samples with ``img_shape`` and ``ori_shape``.
            rescale: Whether masks and boxes are wanted at ``ori_shape`` instead of ``img_shape``.
            **kwargs: Ignored, as in the stock head.

        Returns:
            A dict with ``ins_results`` for each image.

        Raises:
            InputError: ``max_per_image`` is larger than queries times classes, or a mask logit is not finite.
        """
        if self.test_cfg.get('panoptic_on', True) or not self.test_cfg.get('instance_on', False):
            return super().predict(mask_cls_results, mask_pred_results, batch_data_samples, rescale=rescale)
        images = zip(mask_cls_results, mask_pred_results, batch_data_samples, strict=True)
        return [{'ins_results': self._instances(*image, rescale)} for image in images]

    def _instances(
        self, class_logits: Tensor, mask_logits: Tensor, sample: DetDataSample, rescale: bool
    ) -> InstanceData:
        """The best (query, class) pairs of one image, (Q, classes + 1) and (Q, h, w)."""
        height, width = sample.metainfo['img_shape'][:2]
        size = sample.metainfo['ori_shape' if rescale else 'img_shape'][:2]
        limit = self.test_cfg.get('max_per_image', 100)
        scores = F.softmax(class_logits, dim=-1)[:, :-1]
        if limit > scores.numel():
            raise InputError(
                f'max_per_image must be at most queries × classes = {scores.shape[0]} × {scores.shape[1]}, got {limit} '
                '(in model.test_cfg)'
            )
        # Unsorted, so that the order is the stock head's.
        top_scores, top = scores.flatten().topk(limit, sorted=False)
        labels, queries = top % self.num_classes, top // self.num_classes
        is_thing = labels < self.num_things_classes
        top_scores, labels, queries = top_scores[is_thing], labels[is_thing], queries[is_thing]
        kept, place = queries.unique(return_inverse=True)
        masks = upsample_masks([mask_logits[query, :height, :width] for query in kept.tolist()], size)
        mask_scores = top_scores.new_tensor([mask.score for mask in masks])
        boxes = torch.tensor([mask.box for mask in masks], dtype=torch.float32, device=labels.device).reshape(-1, 4)
        return InstanceData(
            bboxes=boxes[place],
            labels=labels,
            scores=top_scores * mask_scores[place],
            masks=RleMasks([masks[index].rle for index in place.tolist()], *size),
        )


class FusedAttention(MultiheadAttention):
    """Mmcv's attention by PyTorch's fused one; the stock also makes the mean of all weights, which nobody reads."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_pos: Tensor,
        key_pos: Tensor,
        attn_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attend, see the stock.

        Args:
            query: ``(B, Q, C)``.
            key: ``(B, K, C)``.
            value: Likewise.
            query_pos: What is added to the query.
            key_pos: And to the key.
            attn_mask: ``(B, 1 or heads, Q, K) bool``, what a query does not see.
            **kwargs: Of no effect: no key is padding.
        """
        own = self.attn
        projections = zip(own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3), strict=True)
        inputs = query + query_pos, key + key_pos, value
        q, k, v = (
            F.linear(one, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for one, (weight, bias) in zip(inputs, projections, strict=True)
        )
        dropout = own.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, None if attn_mask is None else ~attn_mask, dropout)
        joined = own.out_proj(attended.transpose(1, 2).flatten(2))
        return query + self.dropout_layer(self.proj_drop(joined))


class DeformableAttention(MultiScaleDeformableAttention):
    """Mmcv's attention by this project's operators; on a CPU the stock samples maps, point by point."""

    def forward(
        self, query: Tensor, query_pos: Tensor, reference_points: Tensor, spatial_shapes: Tensor, **kwargs: Any
    ) -> Tensor:
        """Attend, see the stock.

        Args:
            query: ``(B, N, C)``, of all levels one after the other; also keys and values.
            query_pos: What is added to the query.
            reference_points: ``(B, N, L, 2)``, where queries lie, from 0 to 1.
            spatial_shapes: ``(L, 2) int64``, height and width of each level.
            **kwargs: Of the stock; ``level_start_index (L,) int64``, the first query of each level.
        """
        asked, grid = query + query_pos, (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(asked).unflatten(2, (*grid, 2)) / spatial_shapes.flip(1)[:, None]
        weights = self.attention_weights(asked).unflatten(2, (grid[0], -1)).softmax(-1).unflatten(3, grid[1:])
        attended = MultiScaleDeformableAttnFunction.apply(
            self.value_proj(query).unflatten(2, (grid[0], -1)),
            spatial_shapes,
            kwargs['level_start_index'],
            reference_points[:, :, None, :, None] + offsets,
            weights,
            self.im2col_step,
        )
        return self.dropout(self.output_proj(attended)) + query


@MODELS.register_module()
class StableMask2FormerHead(Mask2FormerHead):
    """mmdet's :class:`Mask2FormerHead`, matching and losses always in float32, as the authors compute them.

    Under mixed precision the stock head sums the matching cost over 12,544 points in float16, which ends at 65,504: a
    mean logit of 5.3 is enough for an infinite cost, and the matcher stops with "cost matrix is infeasible". In full
    precision nothing changes; the state dict is the stock head's.

    Target masks are float32 from the start. The stock head keeps them as int64, eight bytes a pixel, and converts them
    to float32 twice for every decoder layer.

    Args:
        **kwargs: The stock head's.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for layer in self.pixel_decoder.encoder.layers if STAND_IN_ACTIVE else ():
            layer.self_attn = DeformableAttention(**layer.self_attn_cfg)
        for layer in self.transformer_decoder.layers:
            layer.self_attn = FusedAttention(**layer.self_attn_cfg)
            layer.cross_attn = FusedAttention(**layer.cross_attn_cfg)

    def _decode(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Class logits ``(B, Q, classes + 1)`` and mask embeddings ``(B, Q, C)`` of each layer, and features of pixels.

        What queries do not see is found at the size of attention, by features brought there once. The stock makes full
        masks after every layer and shrinks them: the same, for both steps are linear.
        """
        pixels, maps = self.pixel_decoder(x)
        keys, positions, steering = [], [], []
        for level, project, own in zip(maps, self.decoder_input_projs, self.level_embed.weight, strict=False):
            keys.append(project(level).flatten(2).mT + own)
            nothing = level.new_zeros((len(level), *level.shape[2:]), dtype=torch.bool)  # no pixel is padding
            positions.append(self.decoder_positional_encoding(nothing).flatten(2).mT)
            small = F.interpolate(pixels.detach(), level.shape[2:], mode='bilinear', align_corners=False)
            steering.append(small.flatten(2))
        queries, query_pos = (part.weight.repeat(len(pixels), 1, 1) for part in (self.query_feat, self.query_embed))
        classes: list[Tensor] = []
        embeddings: list[Tensor] = []
        for step in range(self.num_transformer_decoder_layers + 1):
            if step:
                index = (step - 1) % self.num_transformer_feat_level
                hidden = embeddings[-1].detach() @ steering[index] < 0
                hidden &= ~hidden.all(-1, keepdim=True)  # who would see nothing sees everything
                queries = self.transformer_decoder.layers[step - 1](
                    query=queries,
                    key=keys[index],
                    value=keys[index],
                    query_pos=query_pos,
                    key_pos=positions[index],
                    cross_attn_mask=hidden[:, None],
                )
            normal = self.transformer_decoder.post_norm(queries)
            classes.append(self.cls_embed(normal))
            embeddings.append(self.mask_embed(normal))
        return classes, embeddings, pixels

    def forward(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits ``(B, Q, classes + 1)`` and mask logits ``(B, Q, h, w)`` of each layer, see the stock head."""
        classes, embeddings, pixels = self._decode(x)
        masks = (torch.cat(embeddings, 1) @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])
        return classes, list(masks.chunk(len(classes), 1))

    def last_layer(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits ``(B, Q, classes + 1)`` and mask logits ``(B, Q, h, w)`` of the last layer alone."""
        classes, embeddings, pixels = self._decode(x)
        return classes[-1], (embeddings[-1] @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])

    def predict(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[Tensor, Tensor]:
        """Class and mask logits of the last layer, the masks at input size, see the stock head, which makes all."""
        classes, masks = self.last_layer(x)
        size = batch_data_samples[0].metainfo['batch_input_shape']
        return classes, F.interpolate(masks, size, mode='bilinear', align_corners=False)

    def preprocess_gt(
        self, batch_gt_instances: list[InstanceData], batch_gt_semantic_segs: Sequence[Any]
    ) -> list[InstanceData]:
        """Make targets of the annotations, see the stock head; ``masks`` is (N, H, W) float32."""
        targets = super().preprocess_gt(batch_gt_instances, batch_gt_semantic_segs)
        for target in targets:
            target.masks = target.masks.float()
        return targets

    @torch.no_grad()
    def _get_targets_single(
        self, cls_score: Tensor, mask_pred: Tensor, gt_instances: InstanceData, img_meta: dict
    ) -> tuple[Any, ...]:
        """Targets of one image's queries by the config's assigner, see the stock, which samples mask by mask.

        All matches count, as with ``MaskPseudoSampler``, whatever sampler the config has.

        Args:
            cls_score: ``(Q, classes + 1)`` class logits of a layer.
            mask_pred: ``(Q, h, w)`` mask logits.
            gt_instances: ``labels (N,)`` and ``masks (N, H, W)``.
            img_meta: Meta information of the image.

        Returns:
            Labels, their weights, the objects of the queries that have one, which those are ``(Q,)``, their indices,
            nothing for the others, which nobody asks for, and a record of their number.
        """
        points = torch.rand((1, self.num_points, 2), device=cls_score.device)
        found, truth = (point_sample(masks[None], points)[0] for masks in (mask_pred, gt_instances.masks))
        predictions = InstanceData(scores=cls_score, masks=found)
        matched = self.assigner.assign(predictions, InstanceData(labels=gt_instances.labels, masks=truth), img_meta)
        is_matched = matched.gt_inds > 0
        queries = is_matched.nonzero().squeeze(1)
        objects = matched.gt_inds[queries] - 1
        labels = torch.full_like(matched.gt_inds, self.num_classes)
        labels[queries] = gt_instances.labels[objects]
        weights = is_matched.to(mask_pred.dtype)
        number = SimpleNamespace(avg_factor=max(len(queries), 1))
        return labels, torch.ones_like(labels), objects, weights, queries, None, number

    def _loss_by_feat_single(
        self,
        cls_scores: Tensor,
        mask_preds: Tensor,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of classes, masks and dice of one layer, see the stock, which copies all target masks for each."""
        targets = self.get_targets(list(cls_scores), list(mask_preds), batch_gt_instances, batch_img_metas)
        labels, weights, objects, is_matched, number = targets
        labels = torch.cat(labels)
        total = cls_scores.new_tensor(self.class_weight)[labels].sum()
        loss_cls = self.loss_cls(cls_scores.flatten(0, 1), labels, torch.cat(weights), avg_factor=total)
        number = reduce_mean(cls_scores.new_tensor([number])).clamp(min=1)
        found = mask_preds[torch.stack(is_matched) > 0][:, None]
        if not len(found):
            return loss_cls, found.sum(), found.sum()
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(
                found, None, self.num_points, self.oversample_ratio, self.importance_sample_ratio
            )
            images = zip(batch_gt_instances, objects, points.split([len(own) for own in objects]), strict=True)
            truth = torch.cat([_at_points(image.masks, *own) for image, *own in images])
        sampled = point_sample(found, points).squeeze(1)
        loss_dice = self.loss_dice(sampled, truth, avg_factor=number)
        loss_mask = self.loss_mask(sampled.flatten(), truth.flatten(), avg_factor=number * self.num_points)
        return loss_cls, loss_mask, loss_dice

    def loss_by_feat(
        self,
        all_cls_scores: Sequence[Tensor],
        all_mask_preds: Sequence[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
    ) -> dict[str, Tensor]:
        """Compute the losses of every decoder layer, see the stock head.

        Args:
            all_cls_scores: Of each layer, (B, Q, classes + 1) class logits.
            all_mask_preds: Of each layer, (B, Q, h, w) mask logits.
            batch_gt_instances: ``labels`` and ``masks`` of each image.
            batch_img_metas: Meta information of each image.
        """
        scores, masks = ([layer.float() for layer in layers] for layers in (all_cls_scores, all_mask_preds))
        with torch.autocast(scores[0].device.type, enabled=False):
            return super().loss_by_feat(scores, masks, batch_gt_instances, batch_img_metas)


def _at_points(masks: Tensor, objects: Tensor, points: Tensor) -> Tensor:
    """Values ``(n, P)`` of ``masks (N, H, W)`` of objects ``(n,)``, each once, at their points ``(n, P, 2)``."""
    everywhere = points.new_zeros(len(masks), *points.shape[1:])
    everywhere[objects] = points
    return point_sample(masks[:, None], everywhere).squeeze(1)[objects]
