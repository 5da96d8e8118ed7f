"""Contact sheets of training samples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures.bbox import BaseBoxes
from mmengine.config import Config
from mmengine.registry import DefaultScope

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.geometry import LazyResize
from armbench_mmdet.transforms.loading import LoadPolygons, RenderImage
from armbench_mmdet.transforms.tote_copy_paste import ToteCopyPaste
from armbench_mmdet.transforms.tote_crop_jitter import ToteCropJitter
from armbench_mmdet.transforms.warehouse_lighting import WarehouseLighting
from armbench_mmdet.transforms.zoom_out_tote import ZoomOutTote

_MARGIN_PX = 6
_TITLE_PX = 22
_OPACITY = 0.45


def draw_sample(
    image: np.ndarray, bitmaps: np.ndarray, boxes: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """An image with its instances: the first class as an outline, the others filled, each in its own colour.

    Args:
        image: (H, W, 3) uint8, BGR.
        bitmaps: (N, H, W) uint8 or bool.
        boxes: (N, 4) x1, y1, x2, y2 in pixels.
        labels: (N,) int.
        class_names: Names of the labels.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    out = np.ascontiguousarray(image).copy()
    hues = np.linspace(0, 180, max(len(labels), 1), endpoint=False).astype(np.uint8)
    colours = cv2.cvtColor(np.stack([hues, hues * 0 + 220, hues * 0 + 255], axis=1)[None], cv2.COLOR_HSV2BGR)[0]
    for plane, box, label, colour in zip(bitmaps, boxes, labels, colours.tolist(), strict=False):
        covered = np.asarray(plane, np.uint8)
        if label > 0:
            area = covered > 0
            out[area] = ((1 - _OPACITY) * out[area] + _OPACITY * np.array(colour)).astype(np.uint8)
        contours = cv2.findContours(covered, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(out, contours, -1, colour, 1)
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        cv2.rectangle(out, (x1, y1), (x2 - 1, y2 - 1), colour, 1)
        name = class_names[label] if label < len(class_names) else str(label)
        cv2.putText(out, name, (x1 + 2, y1 + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)
    return out


def draw_results(results: dict, class_names: Sequence[str]) -> np.ndarray:
    """:func:`draw_sample` for a sample between two transforms."""
    boxes = results['gt_bboxes']
    array = boxes.tensor.numpy() if isinstance(boxes, BaseBoxes) else np.asarray(boxes)
    bitmaps = results['gt_masks'].to_ndarray()
    return draw_sample(results['img'], bitmaps, array, results['gt_bboxes_labels'], class_names)


def draw_packed(packed: dict, class_names: Sequence[str]) -> np.ndarray:
    """:func:`draw_sample` for what ``PackDetInputs`` hands to the model."""
    image = packed['inputs'].permute(1, 2, 0).clamp(0, 255).byte().numpy()
    instances = packed['data_samples'].gt_instances
    boxes = instances.bboxes.tensor if isinstance(instances.bboxes, BaseBoxes) else instances.bboxes
    labels = instances.labels.numpy()
    bitmaps = instances.masks.to_ndarray() if 'masks' in instances else np.zeros((len(labels), *image.shape[:2]))
    return draw_sample(image, bitmaps, boxes.numpy(), labels, class_names)


def make_sheet(cells: Sequence[np.ndarray], titles: Sequence[str], columns: int, cell_px: int = 360) -> np.ndarray:
    """Pictures in rows of ``columns``, each scaled to fit a square of ``cell_px``, under its title.

    Args:
        cells: Pictures, (H, W, 3) uint8, BGR, of any sizes.
        titles: One for each picture; may be empty.
        columns: Pictures in a row.
        cell_px: Longest side of a picture on the sheet.

    Returns:
        The sheet, (H, W, 3) uint8, BGR.
    """
    rows = []
    for start in range(0, len(cells), columns):
        pictures = [_fitted(cell, cell_px) for cell in cells[start : start + columns]]
        height = _TITLE_PX + max(picture.shape[0] for picture in pictures) + _MARGIN_PX
        row = np.full((height, columns * (cell_px + _MARGIN_PX) + _MARGIN_PX, 3), 255, np.uint8)
        for column, picture in enumerate(pictures):
            x = _MARGIN_PX + column * (cell_px + _MARGIN_PX)
            where = (x + 1, _TITLE_PX - 7)
            cv2.putText(
                row, titles[start + column], where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA
            )
            row[_TITLE_PX : _TITLE_PX + picture.shape[0], x : x + picture.shape[1]] = picture
        rows.append(row)
    return np.concatenate(rows)


def _fitted(picture: np.ndarray, side_px: int) -> np.ndarray:
    """A picture scaled to a longest side of ``side_px``."""
    scale = side_px / max(picture.shape[:2])
    size = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


AUGMENTATIONS = (ToteCropJitter, ZoomOutTote, ToteCopyPaste, WarehouseLighting)
_SHOWN_PX = 512


def pipeline_sheet(config: Config, num: int, columns: int, cell_px: int, seed: int) -> np.ndarray:
    """Samples exactly as the training data set of ``config`` yields them.

    Args:
        config: A config with a ``train_dataloader``.
        num: Number of images; fewer when the data set has fewer.
        columns: Pictures in a row.
        cell_px: Side of a picture.
        seed: Chooses the images and seeds the transforms.

    Returns:
        The sheet, (H, W, 3) uint8, BGR.
    """
    data_set = _training_set(config)
    cells, titles = [], []
    for index in _chosen(len(data_set), num, seed):
        np.random.seed(seed + index)  # noqa: NPY002 - the transforms draw from the global state
        packed = data_set[index]
        cells.append(draw_packed(packed, data_set.metainfo['classes']))
        shape = 'x'.join(str(side) for side in packed['inputs'].shape[:0:-1])
        titles.append(f'{index}: {shape}, {len(packed["data_samples"].gt_instances)} instances')
    return make_sheet(cells, titles, columns, cell_px)


def augmentation_sheet(config: Config, columns: int, cell_px: int, seed: int) -> np.ndarray:
    """One row for each custom augmentation, always applied, on images of the training data set.

    Args:
        config: A config with a ``train_dataloader``.
        columns: Images in a row.
        cell_px: Side of a picture.
        seed: Chooses the images and seeds the augmentations.

    Returns:
        The sheet, (H, W, 3) uint8, BGR; its first row shows the images unchanged.
    """
    data_set = _training_set(config)
    infos = [data_set.get_data_info(index) for index in _chosen(len(data_set), columns, seed)]
    np.random.seed(seed)  # noqa: NPY002 - the transforms draw from the global state
    cells, titles = augmented_cells(infos, data_set.metainfo['classes'])
    return make_sheet(cells, titles, len(infos), cell_px)


def augmented_cells(infos: Sequence[dict], class_names: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    """Pictures and titles of :func:`augmentation_sheet`, row by row.

    Args:
        infos: Annotated images as a data set gives them before any transform.
        class_names: Names of the labels.
    """
    cells, titles = [], []
    for augmentation in (None, *AUGMENTATIONS):
        step: list[Any] = [] if augmentation is None else [augmentation(prob=1.0)]
        render = [LazyResize(scale=(_SHOWN_PX, _SHOWN_PX), keep_ratio=True), RenderImage()]
        # The crop comes first, where it gains resolution; the others work on the final image.
        steps = [*step, *render] if augmentation is ToteCropJitter else [*render, *step]
        for info in infos:
            results = copy.deepcopy(info)
            for transform in (LoadPolygons(), *steps):
                results = transform(results)
            cells.append(draw_results(results, class_names))
            titles.append('unchanged' if augmentation is None else augmentation.__name__)
    return cells, titles


def _training_set(config: Config) -> Any:
    """The training data set, fully initialised."""
    if 'train_dataloader' not in config:
        raise InputError(
            f'train_dataloader must be in the config, got {sorted(config.keys())!r} (in {config.filename})'
        )
    with DefaultScope.overwrite_default_scope('mmdet'):
        data_set = DATASETS.build(config.train_dataloader.dataset)
        data_set.full_init()
    if not len(data_set):
        raise InputError(f'training data must hold an image, got none (in {config.filename})')
    return data_set


def _chosen(size: int, num: int, seed: int) -> list[int]:
    """``num`` of ``size`` indices, ascending, without repetition."""
    return sorted(np.random.default_rng(seed).choice(size, min(num, size), replace=False).tolist())
