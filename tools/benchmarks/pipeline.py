"""The training pipelines: polygons to the end against stock mmdet, on generated JPEGs, on one core."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {'1280x960': (1280, 960), '2448x2048': (2448, 2048)}
MASK2FORMER_PX = (1024, 1024)
MASK_RCNN_PX = (1333, 800)
_INSTANCES = 11
# Pairs of boxes lie closer than this, and what one pipeline leaves out is no larger than that.
_PAIRED_PX = 8
_SPECK_PX = 30


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Images per second and core of both pipelines, at 1280×960, and at ARMBench's 2448×2048 unless ``small``."""
    with tempfile.TemporaryDirectory() as folder:
        for size, (width, height) in list(SIZES.items())[: 1 if small else None]:
            path = Path(folder) / f'{size}.jpg'
            path.write_bytes(photo(width, height))
            infos = [annotated(path, width, height, seed) for seed in range(8 if small else 40)]
            jpeg = f'{size} JPEG of {path.stat().st_size // 1000} kB'
            yield compare(f'Mask2Former, {jpeg}', *mask2former_pipelines(), infos)
            yield compare(f'Mask R-CNN, {jpeg}', *mask_rcnn_pipelines(), infos)


def mask2former_pipelines() -> tuple[list[dict], list[dict]]:
    """Stock's large-scale jittering (``mask2former_r50_8xb2-lsj-50e_coco.py``), and the same with our transforms."""
    jitter = {'type': 'RandomResize', 'scale': MASK2FORMER_PX, 'ratio_range': (0.1, 2.0), 'keep_ratio': True}
    crop = {'crop_size': MASK2FORMER_PX, 'crop_type': 'absolute', 'recompute_bbox': True, 'allow_negative_crop': True}
    visible = {'type': 'FilterAnnotations', 'min_gt_bbox_wh': (1e-5, 1e-5), 'by_mask': True}
    stock = [
        {'type': 'LoadImageFromFile', 'to_float32': True},
        {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        {'type': 'RandomFlip', 'prob': 0.5},
        {**jitter, 'resize_type': 'Resize'},
        {'type': 'RandomCrop', **crop},
        visible,
        {'type': 'PackDetInputs'},
    ]
    ours = [
        {'type': 'LoadPolygons'},
        {'type': 'LazyRandomFlip', 'prob': 0.5},
        {**jitter, 'resize_type': 'LazyResize'},
        {'type': 'LazyRandomCrop', **crop},
        visible,
        {'type': 'RenderImage'},
        {'type': 'PackDetInputs'},
    ]
    return stock, ours


def mask_rcnn_pipelines() -> tuple[list[dict], list[dict]]:
    """Stock's ``coco_instance.py``, and the same with our transforms; masks stay polygons for the mask head."""
    stock = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        {'type': 'Resize', 'scale': MASK_RCNN_PX, 'keep_ratio': True},
        {'type': 'RandomFlip', 'prob': 0.5},
        {'type': 'PackDetInputs'},
    ]
    ours = [
        {'type': 'LoadPolygons'},
        {'type': 'LazyResize', 'scale': MASK_RCNN_PX, 'keep_ratio': True},
        {'type': 'LazyRandomFlip', 'prob': 0.5},
        {'type': 'RenderImage'},
        {'type': 'PackDetInputs'},
    ]
    return stock, ours


def compare(case: str, stock: list[dict], ours: list[dict], infos: list[dict]) -> dict[str, Any]:
    """Run both pipelines on the same images with the same random draws, in turns, and compare what comes out.

    Args:
        case: What the row is called.
        stock: Stock's transforms.
        ours: Our transforms.
        infos: Annotated images as a data set gives them.

    Returns:
        A row; ``equal`` when labels are equal, boxes a pixel or so apart on average (after a crop they follow from the
        masks) and the mean mask IoU is at least 0.97, as stock's masks are half a pixel off. Images are not compared:
        reduced decoding is not exact, as ``RenderImage`` says.
    """
    import copy

    import cv2
    import torch
    from mmdet.registry import TRANSFORMS
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        runs = [Compose([TRANSFORMS.build(dict(step)) for step in steps]) for steps in (stock, ours)]
    runs[1](copy.deepcopy(infos[0]))  # compiles the kernels where the cache is cold
    spent_s, ious, distances = [0.0, 0.0], [], [0.0]
    for seed, info in enumerate(infos):
        outputs = []
        for which, run in enumerate(runs):
            sample = copy.deepcopy(info)
            np.random.seed(seed)  # noqa: NPY002 - the transforms draw from the global state
            start = time.process_time()
            outputs.append(run(sample))
            spent_s[which] += time.process_time() - start
        for values, found in zip((distances, ious), agreement(*outputs), strict=True):
            values.extend(found)
    peer, mine = (len(infos) / seconds for seconds in spent_s)
    apart = float(np.mean(distances))
    mean_iou = float(np.mean(ious)) if ious else 1.0
    return {
        'name': 'pipeline',
        'case': f'{case}; boxes {apart:.2f} px apart, mask IoU {mean_iou:.4f}',
        'ours': mine,
        'peer': peer,
        'unit': 'img/s',
        'ratio': mine / peer,
        'equal': bool(apart <= 1.5 and mean_iou >= 0.97),
    }


def agreement(stock: dict | None, ours: dict | None) -> tuple[list[float], list[float]]:
    """Of each pair of instances, how far their boxes are apart in px, and the IoU of their masks.

    An instance of a few pixels may be left out by one pipeline and not by the other; anything else without a partner,
    or images of different shapes, count as infinitely far apart.
    """
    if stock is None or ours is None:
        return [] if stock is ours else [np.inf], []
    first, second = (list(_instances(packed)) for packed in (stock, ours))
    distances, ious = [] if stock['inputs'].shape == ours['inputs'].shape else [np.inf], []
    while first and second:
        (label, box, mask), (other_label, other_box, other_mask) = first[0], second[0]
        distance = float(np.abs(box - other_box).max())
        if label == other_label and distance <= _PAIRED_PX:
            distances.append(distance)
            ious.append(float((mask & other_mask).sum() / max((mask | other_mask).sum(), 1)))
            del first[0], second[0]
        elif min(mask.sum(), other_mask.sum()) <= _SPECK_PX:
            del (first if mask.sum() < other_mask.sum() else second)[0]
        else:
            return [np.inf], ious
    return distances + [np.inf for _, _, mask in first + second if mask.sum() > _SPECK_PX], ious


def _instances(packed: dict) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Label, box and mask of each instance."""
    found = packed['data_samples'].gt_instances
    yield from zip(
        found.labels.tolist(), found.bboxes.tensor.numpy(), np.asarray(found.masks.to_ndarray()) > 0, strict=True
    )


def photo(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG with a photograph's mixture of coarse shapes, fine texture and sensor noise."""
    import cv2

    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for cells, contrast in ((8, 60), (32, 40), (128, 20), (512, 8)):
        coarse = rng.normal(0, contrast, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 2.5, (height, width, 1))
    return cv2.imencode('.jpg', np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def annotated(path: Path, width: int, height: int, seed: int) -> dict[str, Any]:
    """A tote and ten objects, as a data set describes them before any transform."""
    rng = np.random.default_rng(seed)
    instances = []
    for index in range(_INSTANCES):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 60))
        radius = (rng.uniform(0.05, 0.13) * width if index else 0.42 * height) * rng.uniform(0.85, 1.0, 60)
        centre = rng.uniform(0.15, 0.85, 2) * [width, height] if index else np.array([width, height]) / 2
        xy = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        xy = np.clip(xy, 0, [width, height]).round(2)
        box = [*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist()]
        polygon = xy.reshape(-1).tolist()
        instances.append({'bbox': box, 'bbox_label': int(index > 0), 'ignore_flag': 0, 'mask': [polygon]})
    return {'img_path': str(path), 'img_id': seed, 'height': height, 'width': width, 'instances': instances}
