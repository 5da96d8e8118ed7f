"""Swin Transformer's windows, laid out for the size that an image turns out to have."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from armbench_mmdet.models.swin import SEPARATE, WindowAttention


def trace_windows(model: nn.Module) -> None:
    """Replace a model's windows by traceable ones, and leave out its padding to even sizes: its input has such."""
    modules: list[Any] = list(model.modules())
    for module in modules:
        if isinstance(getattr(module, 'attn', None), WindowAttention):
            module.attn = WindowGraph(module.attn)
        if hasattr(module, 'adap_padding'):
            module.adap_padding = None


class WindowGraph(nn.Module):
    """Attention within windows, as mmdet's ``ShiftWindowMSA`` computes it.

    Args:
        windowed: What it replaces.
    """

    def __init__(self, windowed: WindowAttention) -> None:
        super().__init__()
        self.attention, self.window, self.shift = windowed.w_msa, windowed.window, windowed.shift

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Attend; ``query`` and what is returned are ``(1, H * W, C)``."""
        (height, width), window, shift = hw_shape, self.window, self.shift
        rows, columns = (height + window - 1) // window, (width + window - 1) // window

        def cut(image: Tensor) -> Tensor:
            return image.view(rows, window, columns, window, -1).transpose(1, 2).reshape(rows * columns, window**2, -1)

        border = 0, 0, 0, columns * window - width, 0, rows * window - height
        image = F.pad(query.view(height, width, -1), border).roll((-shift, -shift), (0, 1))
        # Within a window the shift has made places neighbours that it brought from the other side of the image.
        down, across = (torch.arange(count * window) >= count * window - shift for count in (rows, columns))
        side = cut(2 * down[:, None] + across)
        apart = SEPARATE * (side != side.transpose(1, 2)) if shift else None
        joined = self.attention(cut(image), apart).view(rows, columns, window, window, -1).transpose(1, 2)
        joined = joined.reshape(rows * window, columns * window, -1).roll((shift, shift), (0, 1))
        return joined[:height, :width].reshape(1, height * width, -1)
