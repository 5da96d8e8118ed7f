"""Weights made from the names of tensors, pictures and a training, the same for a model and its peer."""

import zlib
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor


def made_weights(shapes: Mapping[str, Tensor], gains: Mapping[float, Sequence[str]]) -> dict[str, Tensor]:
    """Random weights that keep activations near one, the same on every machine; gains are by a part of the name."""
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
        gain = next((gain for gain, parts in gains.items() if any(part in name for part in parts)), 1)
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


def made_objects(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A tote and three objects: boxes ``(4, 4) float32`` in px, labels ``(4,)``, elliptic masks ``(4, H, W) uint8``."""
    shares = [(0.03, 0.06, 0.94, 0.96), (0.16, 0.19, 0.41, 0.46), (0.47, 0.12, 0.6, 0.62), (0.48, 0.66, 0.66, 0.84)]
    boxes = np.rint(np.multiply(shares, (width, height, width, height))).astype(int)
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        cv2.ellipse(mask, ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2), 0, 0, 360, 1, -1)
    return torch.from_numpy(boxes).float(), torch.tensor([0, 1, 1, 1]), torch.from_numpy(masks)


def train_both(losses: Sequence[Callable], parameters: Sequence, steps: int, lr: float, rel: float) -> list[float]:
    """Train our model and its peer, whose losses are equal at every step; what the peer's add up to."""
    optimizers, totals = [torch.optim.SGD(own, lr) for own in parameters], []
    for _ in range(steps):
        both = [of_model() for of_model in losses]
        found, expected = ({name: value.item() for name, value in own.items()} for own in both)
        print({name: found[name] / value - 1 for name, value in expected.items()})
        assert found == pytest.approx(expected, rel=rel)
        totals.append(sum(expected.values()))
        for optimizer, own in zip(optimizers, both, strict=True):
            optimizer.zero_grad()
            sum(own.values()).backward()
            optimizer.step()
    return totals
