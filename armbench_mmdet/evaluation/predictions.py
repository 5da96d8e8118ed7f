"""Predictions of a model, checked on the way in and turned into COCO results on the way out."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import write_atomically
from armbench_mmdet.masks.encode import encode_masks


def checked_prediction(sample: Mapping[str, Any], num_classes: int, with_masks: bool) -> dict[str, Any]:
    """The part of a data sample that is evaluated, on the CPU and without bitmaps.

    Args:
        sample: ``img_id``, perhaps ``ori_shape`` (H, W), and ``pred_instances`` with ``bboxes`` ``(N, 4)`` xyxy,
            ``scores`` ``(N,)``, ``labels`` ``(N,)`` and ``masks``: ``(N, H, W)`` bool or N RLE dicts.
        num_classes: Labels run from 0 to one less.
        with_masks: Whether masks are wanted.

    Returns:
        ``img_id``, ``bboxes``, ``scores``, ``labels`` as arrays and, if wanted, ``masks`` as a list of RLE dicts.

    Raises:
        InputError: Labels out of range, numbers that are not finite, arrays of different lengths, no masks where
            masks are wanted, masks of another size than the image.
    """
    instances, image_id = sample['pred_instances'], int(sample['img_id'])
    where = f'in the predictions of image {image_id}'
    prediction: dict[str, Any] = {'img_id': image_id}
    for key in ('bboxes', 'scores', 'labels'):
        prediction[key] = _array(instances[key])
        if not np.isfinite(prediction[key]).all():
            raise InputError(f'{key} must be finite, got NaN or infinity ({where})')
    labels = prediction['labels']
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise InputError(
            f'labels must be from 0 to {num_classes - 1}, got {labels.min()} to {labels.max()} ({where}); '
            "check num_classes of the model's head"
        )
    if with_masks:
        if 'masks' not in instances:
            raise InputError(
                f'pred_instances must have masks to be evaluated as masks, got {sorted(instances.keys())} ({where}); '
                "a box is no mask: use a model with a mask head, or metric='bbox'"
            )
        prediction['masks'] = _run_lengths(instances['masks'])
        check_mask_sizes(prediction, sample.get('ori_shape'))
    lengths = {key: len(value) for key, value in prediction.items() if key != 'img_id'}
    if len(set(lengths.values())) > 1:
        raise InputError(f'pred_instances must have as many of each, got {lengths} ({where})')
    return prediction


def check_mask_sizes(prediction: Mapping[str, Any], size: Sequence[int] | None) -> None:
    """Refuse masks that were not made for an image of this size (H, W)."""
    if size is None:
        return
    wanted = [int(side) for side in size[:2]]
    for rle in prediction.get('masks', ()):
        got = [int(side) for side in rle['size']]
        if got != wanted:
            raise InputError(
                f'mask size must be that of the image, {wanted} (height, width), got {got} '
                f'(in the predictions of image {prediction["img_id"]})'
            )


def without_detections(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """The prediction of the same image with nothing found in it."""
    return {key: value if key == 'img_id' else value[:0] for key, value in prediction.items()}


def coco_detections(
    predictions: Iterable[Mapping[str, Any]], category_ids: Sequence[int | str], iou_type: str
) -> list[dict[str, Any]]:
    """COCO results for one IoU type.

    Args:
        predictions: As :func:`checked_prediction` makes them.
        category_ids: The category of each label.
        iou_type: ``bbox`` gives results with a box, anything else results with a mask and no box: with a box,
            COCO's loader would take the box's area for the mask's.
    """
    detections = []
    for prediction in predictions:
        categories = [category_ids[label] for label in prediction['labels'].tolist()]
        scores = prediction['scores'].astype(np.float64).tolist()
        if iou_type == 'bbox':
            boxes = prediction['bboxes'].astype(np.float64).reshape(-1, 4)
            boxes[:, 2:] -= boxes[:, :2]
            shapes: Sequence[Any] = boxes.tolist()
        else:
            shapes = prediction['masks']
        key = 'bbox' if iou_type == 'bbox' else 'segmentation'
        for category, score, shape in zip(categories, scores, shapes, strict=True):
            detections.append({'image_id': prediction['img_id'], 'category_id': category, 'score': score, key: shape})
    return detections


def write_coco_results(path: str | Path, detections: Sequence[Mapping[str, Any]]) -> Path:
    """Write detections in COCO's results format, for any other evaluator to check."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(detections))
    return path


def _array(value: Any) -> np.ndarray:
    if hasattr(value, 'tensor'):  # mmdet's box structures
        value = value.tensor
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _run_lengths(masks: Any) -> list[dict[str, Any]]:
    if isinstance(masks, torch.Tensor | np.ndarray):
        return encode_masks(masks)
    return [
        {
            'size': [int(side) for side in rle['size']],
            'counts': rle['counts'].decode() if isinstance(rle['counts'], bytes) else rle['counts'],
        }
        for rle in masks
    ]
