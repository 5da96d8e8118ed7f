"""Swin Transformer whose windows are cut and joined in one copy each."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import SwinTransformer
from mmdet.registry import MODELS
from torch import Tensor, nn

SEPARATE = -100.0
"""What is added to the attention between places that only the shift has made neighbours, as in the stock."""


@MODELS.register_module()
class WindowedSwinTransformer(SwinTransformer):
    """mmdet's :class:`SwinTransformer`, of the same weights and outputs, in less time and memory.

    In every block the stock pads, rolls and cuts in four copies, joins in as many, and makes a mask for each window.
    Here a window's rows are taken in one copy, there is a mask for each border that a window can lie at, whatever the
    image's size, attention is PyTorch's fused one, and padding is not projected.

    Args:
        **kwargs: As for the stock backbone.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for stage in self.stages:
            for block in stage.blocks:
                block.attn = WindowAttention(block.attn)


class WindowAttention(nn.Module):
    """Attention within windows, shifted or not, with the modules of the stock's ``ShiftWindowMSA``.

    Args:
        stock: What it replaces.
    """

    w_msa: Any
    drop: nn.Module

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.w_msa, self.drop = stock.w_msa, stock.drop
        self.window, self.shift = stock.window_size, stock.shift_size

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Attend; ``query`` and what is returned are ``(B, H * W, C)``."""
        attention = self.w_msa
        batch, _, channels = query.shape
        heads, area = attention.num_heads, self.window**2
        rows, places, padding, counts = window_rows(batch, *hw_shape, self.window, self.shift, query.device)
        projected = attention.qkv(query).flatten(0, 1)
        windows = projected.index_select(0, rows)
        if len(padding) and attention.qkv.bias is not None:
            windows.index_copy_(0, padding, attention.qkv.bias.to(windows.dtype).expand(len(padding), -1))
        elif len(padding):
            windows.index_fill_(0, padding, 0)
        windows = windows.view(-1, area, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        table = attention.relative_position_bias_table[attention.relative_position_index.flatten()]
        # In the order of memory that fused attention on a GPU asks for: it is slow, without a word, for any other.
        biases = table.view(area, area, heads).permute(2, 0, 1).contiguous()
        biases = biases + border_masks(self.window, self.shift, query.device)
        dropout = attention.attn_drop.p if self.training else 0.0
        parts = zip((part.unbind() for part in windows.split(counts, 1)), biases, strict=True)
        attended = [
            F.scaled_dot_product_attention(q, k, v, bias[None].to(q.dtype), dropout, scale=attention.scale)
            for (q, k, v), bias in parts
            if q.numel()
        ]
        joined = torch.cat([part.transpose(1, 2).flatten(2) for part in attended]).flatten(0, 1)
        joined = joined.index_select(0, places).view(batch, -1, channels)
        return self.drop(attention.proj_drop(attention.proj(joined)))


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def window_rows(
    batch: int, height: int, width: int, window: int, shift: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Where windows take their rows from; windows at the same border follow each other.

    Returns:
        For each of M places in windows its row in the images, any for padding; for each row of the images its place;
        the places that are padding; and how many windows lie at no border, the right, the lower, and both.
    """
    count = batch * height * width
    image = torch.arange(count, device=device).view(batch, height, width)
    image = F.pad(image, (0, -width % window, 0, -height % window), value=count).roll((-shift, -shift), (1, 2))
    cut = image.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)  # (B, rows, columns, window²)
    inner, last = slice(-1), slice(-1, None)
    borders = [(inner, inner), (inner, last), (last, inner), (last, last)] if shift else [(slice(None), slice(None))]
    parts = [cut[:, down, across].flatten(3).flatten(0, 2) for down, across in borders]
    rows = torch.cat(parts).flatten()
    places, padding = rows.argsort(stable=True).split([count, len(rows) - count])
    return rows.clamp(max=count - 1), places, padding, [len(part) for part in parts]


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def border_masks(window: int, shift: int, device: torch.device) -> Tensor:
    """What is added to attention in windows at no border, the right, the lower, and both, ``(4 or 1, 1, N, N)``."""
    is_wrapped = torch.arange(window, device=device) >= window - shift
    across, down = is_wrapped.repeat(window), is_wrapped.repeat_interleave(window)
    right, lower = (side[:, None] ^ side for side in (across, down))
    masks = torch.stack([right & False, right, lower, right | lower][: 4 if shift else 1])
    return masks[:, None] * SEPARATE
