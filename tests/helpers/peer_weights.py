"""Weights made from the names of tensors, so that a model and its peer can have the same without a file."""

import zlib
from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor


def made_weights(shapes: Mapping[str, Tensor], gains: Mapping[str, float]) -> dict[str, Tensor]:
    """Random weights that keep activations near one, the same on every machine.

    Args:
        shapes: Tensors of the wanted names and shapes.
        gains: What tensors whose name contains a key are multiplied by.
    """
    made = {}
    for name, like in shapes.items():
        module, _, kind = name.rpartition('.')
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(like.shape, np.float32)
        is_norm = f'{module}.running_mean' in shapes
        if kind == 'num_batches_tracked':
            noise = np.zeros(like.shape, np.int64)
        elif kind == 'running_var':
            noise = 1 + 0.2 * np.abs(noise)
        elif kind == 'weight' and is_norm:
            noise = (0.3 if module.endswith('bn3') else 1) + 0.1 * noise
        elif like.dim() > 1:
            noise -= noise.mean(axis=tuple(range(1, like.dim())), keepdims=True)  # inputs are positive
            noise = noise * np.float32((2 / np.prod(like.shape[1:])) ** 0.5)
        else:
            noise = 0.1 * noise
        gain = next((value for key, value in gains.items() if key in name), 1)
        made[name] = torch.from_numpy(np.asarray(noise * gain)).to(like.dtype)
    return made


def made_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of patches of every size, ``(H, W, 3) uint8``."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (3, 9, 27, 81):
        noise = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST) / 4
    return image.astype(np.uint8)
