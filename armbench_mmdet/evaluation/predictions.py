"""Predictions of a model, checked on the way in and turned into COCO results on the way out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.protocol import Shapes
from armbench_mmdet.files import draft_of
from armbench_mmdet.masks.encode import encode_masks


def checked_prediction(sample: Mapping[str, Any], num_classes: int, with_masks: bool) -> dict[str, Any]:
    """The part of a data sample that is evaluated, on the CPU and without bitmaps.

    Args:
        sample: ``img_id``, ``ori_shape`` (H, W), and ``pred_instances`` with ``bboxes`` ``(N, 4)`` xyxy,
            ``scores`` ``(N,)``, ``labels`` ``(N,)`` and ``masks``: ``(N, H, W)`` bool or N RLE dicts.
        num_classes: Labels run from 0 to one less.
        with_masks: Whether there must be masks.

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
        size = list(sample['ori_shape'][:2])
        wrong = [rle['size'] for rle in prediction['masks'] if rle['size'] != size]
        if wrong:
            raise InputError(f'mask size must be that of the image, {size} (height, width), got {wrong[0]} ({where})')
    lengths = {key: len(value) for key, value in prediction.items() if key != 'img_id'}
    if len(set(lengths.values())) > 1:
        raise InputError(f'pred_instances must have as many of each, got {lengths} ({where})')
    return prediction


def shapes_of(predictions: Sequence[Mapping[str, Any]], category_ids: Sequence[int | str]) -> Shapes:
    """Predictions of several images, at least one, as columns.

    Args:
        predictions: As :func:`checked_prediction` makes them.
        category_ids: The category of each label; with names in their place they can only be written.
    """
    labels, scores = (np.concatenate([one[key] for one in predictions]) for key in ('labels', 'scores'))
    image_ids = np.repeat([one['img_id'] for one in predictions], [len(one['labels']) for one in predictions])
    boxes = np.concatenate([one['bboxes'].reshape(-1, 4) for one in predictions]).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    masks = [mask for one in predictions for mask in one.get('masks') or [None] * len(one['labels'])]
    return Shapes(image_ids, np.array(category_ids)[labels.astype(np.int64)], scores.astype(np.float64), boxes, masks)


def write_coco_results(path: Path, detections: Shapes, iou_type: str) -> None:
    """Write detections in COCO's results format, for any other evaluator to check.

    ``bbox`` gives results with a box, ``segm`` results with a mask and no box: with a box, COCO's loader would take the
    box's area for the mask's.
    """
    key, shapes = ('bbox', detections.boxes.tolist()) if iou_type == 'bbox' else ('segmentation', detections.masks)
    columns = (column.tolist() for column in detections[:3])
    names = ('image_id', 'category_id', 'score', key)
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, shapes, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft, draft.open('wb') as file:
        for number, row in enumerate(rows):  # never all of it as text in memory
            file.write((b',\n' if number else b'[') + msgspec.json.encode(row))
        file.write(b']\n' if len(detections.scores) else b'[]\n')


def _array(value: Any) -> np.ndarray:
    if hasattr(value, 'tensor'):  # mmdet's box structures
        value = value.tensor
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _run_lengths(masks: Any) -> list[dict[str, Any]]:
    if isinstance(masks, torch.Tensor | np.ndarray):
        return encode_masks(masks)
    codes = [rle['counts'].decode() if isinstance(rle['counts'], bytes) else rle['counts'] for rle in masks]
    return [{'size': [*map(int, rle['size'])], 'counts': code} for rle, code in zip(masks, codes, strict=True)]
