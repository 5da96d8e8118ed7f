"""Mask2Former's post-processing: the bounded-memory fusion head against mmdet's, each in a process of its own.

Both start from the same mask logits at network size and end with COCO run lengths; stock encodes its bitmaps with
pycocotools, as its metric does.
"""

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
QUERIES = 100
SIZES_PX = {  # image, network input: the shorter side 800
    '240×320': ((240, 320), (800, 1067)),
    '960×1280': ((960, 1280), (800, 1067)),
    '2048×2448': ((2048, 2448), (800, 956)),
}
KINDS = ('objects', 'noise')
"""Logits of compact objects, as a trained model gives, and of independent noise, the worst case for run lengths."""


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Yield rows of time (the better of two calls after one to warm up) and of memory added by another call."""
    for size in list(SIZES_PX)[: 1 if small else None]:
        for kind in KINDS:
            peer, ours = (
                _measure(which, size, kind) for which in ('MaskFormerFusionHead', 'BoundedMaskFormerFusionHead')
            )
            errors = [abs(mine - theirs) for mine, theirs in zip(ours['scores'], peer['scores'], strict=True)]
            equal = ours['labels'] == peer['labels'] and max(errors) < 1e-4 and agree(ours['rles'], peer['rles'])
            for name, key, unit in (('time', 'time_s', 's'), ('added memory', 'added_mb', 'MB')):
                yield {
                    'name': 'postprocess',
                    'case': f'Mask2Former, {QUERIES} queries to {size}, {kind}, {name}',
                    'ours': ours[key],
                    'peer': peer[key],
                    'unit': unit,
                    'ratio': peer[key] / ours[key],
                    'equal': equal,
                }


def agree(ours: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]]) -> bool:
    """Whether COCO RLEs are pairwise the same up to one pixel in 100,000, for those on the threshold."""
    from pycocotools import mask as coco_mask

    return len(ours) == len(peers) and all(
        not (coco_mask.area(mine) or coco_mask.area(theirs)) or coco_mask.iou([mine], [theirs], [0])[0, 0] > 1 - 1e-5
        for mine, theirs in zip(ours, peers, strict=True)
    )


def _measure(which: str, size: str, kind: str) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, __file__, which, size, kind, file.name]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
        return pickle.load(file)


def _logits(size: str, kind: str) -> Any:
    """(1, Q, H, W) at the padded network size, from a quarter of it, as Mask2Former's head does."""
    import torch
    import torch.nn.functional as F

    draw = torch.Generator().manual_seed(0)
    height, width = (-(-side // 32) * 32 for side in SIZES_PX[size][1])
    if kind == 'noise':
        return torch.randn(1, QUERIES, height, width, generator=draw)
    shape = (height // 4, width // 4)
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in shape), indexing='ij')
    centre = torch.rand(2, QUERIES, 1, 1, generator=draw)
    radius = 0.05 + 0.2 * torch.rand(QUERIES, 1, 1, generator=draw) ** 2
    values = 10 * (1 - ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2).clamp(min=-1)
    values += torch.randn(values.shape, generator=draw)
    return F.interpolate(values[None], (height, width), mode='bilinear', align_corners=False)


def _postprocess(which: str, size: str, kind: str) -> dict[str, Any]:
    import torch
    from benchmarks._memory import added_mb
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import encode_mask_results
    from mmengine.config import ConfigDict

    test_cfg = ConfigDict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=QUERIES)
    head = MODELS.build({'type': which, 'num_things_classes': 2, 'num_stuff_classes': 0, 'test_cfg': test_cfg})
    logits, original = _logits(size, kind), SIZES_PX[size][0]
    # Every query is kept once: as many masks as queries, the dearest case.
    classes = torch.randn(1, QUERIES, 3, generator=torch.Generator().manual_seed(1))
    classes[..., 1] = -1000.0
    metainfo = {'img_shape': SIZES_PX[size][1], 'ori_shape': original}

    def call() -> dict[str, list[Any]]:
        result = head.predict(classes, logits, [DetDataSample(metainfo=metainfo)], rescale=True)[0]['ins_results']
        is_stock = isinstance(result.masks, torch.Tensor)
        rles = encode_mask_results(result.masks.numpy()) if is_stock else list(result.masks)
        return {'scores': result.scores.tolist(), 'labels': result.labels.tolist(), 'rles': rles}

    times_s = []
    for _ in range(3):
        start = time.perf_counter()
        found = call()
        times_s.append(time.perf_counter() - start)
    return {**found, 'time_s': min(times_s[1:]), 'added_mb': added_mb(call)}


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT / 'tools'))
    import armbench_mmdet  # noqa: F401  # before mmdet

    with open(sys.argv[4], 'wb') as output:
        pickle.dump(_postprocess(*sys.argv[1:4]), output)
