"""Post-processing of both models, from what the network gives to COCO run lengths.

Mask R-CNN: run lengths box by box against stock pasting and encoding of the same 28×28 probabilities and boxes.
Mask2Former: see :mod:`benchmarks._mask2former`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import _mask2former
from benchmarks._memory import added_mb

MASKS = 100
SIZES_PX = ((960, 1280), (2048, 2448))
REPEATS = 3


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Yield rows of time (the best of three) and memory for pasting with encoding, and of time for encoding alone."""
    from mmdet.structures.mask import encode_mask_results

    from armbench_mmdet.masks.encode import encode_masks
    from armbench_mmdet.masks.upsample import encode_boxed_masks

    for height, width in SIZES_PX[: 1 if small else None]:
        masks, boxes = _predictions(height, width)
        bitmaps = _stock_paste(masks, boxes, height, width).numpy()

        def ours(*args: Any) -> list[dict[str, Any]]:
            return encode_boxed_masks(*args)

        def stock(*args: Any) -> list[dict[str, Any]]:
            return encode_mask_results(_stock_paste(*args).numpy())

        size = f'{height}×{width}'
        inputs = (masks, boxes, height, width)
        yield _row(f'{MASKS} masks at {size}, paste and encode', 's', _seconds, (ours, stock), inputs)
        yield _row(f'{MASKS} masks at {size}, added memory', 'MB', _memory_mb, (ours, stock), inputs)
        yield _row(
            f'{MASKS} masks at {size}, encode bitmaps alone',
            's',
            _seconds,
            (encode_masks, encode_mask_results),
            (bitmaps,),
        )
    yield from _mask2former.rows(small)


def _row(
    case: str, unit: str, measure: Callable[..., tuple[float, Any]], both: tuple[Any, Any], inputs: tuple[Any, ...]
) -> dict[str, Any]:
    (ours, our_masks), (peer, peer_masks) = (measure(function, inputs) for function in both)
    equal = _mask2former.agree(our_masks, peer_masks)
    figures = {'ours': ours, 'peer': peer, 'unit': unit, 'ratio': peer / ours}
    return {'name': 'postprocess', 'case': case, **figures, 'equal': equal}


def _seconds(function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[float, Any]:
    function(*(one[:2] if i < 2 and hasattr(one, 'shape') else one for i, one in enumerate(inputs)))  # compile
    times_s = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        value = function(*inputs)
        times_s.append(time.perf_counter() - start)
    return min(times_s), value


def _memory_mb(function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[float, Any]:
    value: list[Any] = []
    return added_mb(lambda: value.extend(function(*inputs))), value


def _stock_paste(masks: Any, boxes: Any, height: int, width: int) -> Any:
    """What ``FCNMaskHead`` does on the CPU."""
    import torch
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for i in range(len(masks)):
        part, (own_rows, own_columns) = _do_paste_mask(masks[i : i + 1, None], boxes[i : i + 1], height, width)
        pasted[i, own_rows, own_columns] = part[0] >= 0.5
    return pasted


def _predictions(height: int, width: int) -> tuple[Any, Any]:
    """Smooth blobs in boxes with sides of an eightieth to a quarter of the image's."""
    import torch
    from torch.nn.functional import interpolate

    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(MASKS, 1, 6, 6, generator=draw) * 4 + 1
    masks = interpolate(coarse, size=28, mode='bilinear')[:, 0].sigmoid()
    limits = torch.tensor([width, height])
    centres = torch.rand(MASKS, 2, generator=draw) * limits
    half = (torch.rand(MASKS, 2, generator=draw) * 0.24 + 0.0125) * limits / 2
    corners = torch.stack([centres - half, centres + half], 1).clamp(min=0)
    return masks, torch.minimum(corners, limits.float()).reshape(MASKS, 4)
