"""Mask2Former's attention, of the same weights and outputs, in less time and memory."""

from typing import Any

import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention, MultiScaleDeformableAttnFunction
from torch import Tensor

from armbench_mmdet.ops import STAND_IN_ACTIVE


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
    """Mmcv's attention, on a CPU by this project's kernel; the stock samples maps there, point by point."""

    def forward(
        self, query: Tensor, query_pos: Tensor, reference_points: Tensor, spatial_shapes: Tensor, **kwargs: Any
    ) -> Tensor:
        """Attend, see the stock.

        Args:
            query: ``(B, N, C)``, of all levels one after the other; also keys and values.
            query_pos: What is added to the query.
            reference_points: ``(B, N, L, 2)``, where queries lie, from 0 to 1.
            spatial_shapes: ``(L, 2) int64``, height and width of each level.
            **kwargs: Of the stock.
        """
        if query.is_cuda or not STAND_IN_ACTIVE:
            return super().forward(
                query,
                query_pos=query_pos,
                reference_points=reference_points,
                spatial_shapes=spatial_shapes,
                **kwargs,
            )
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
