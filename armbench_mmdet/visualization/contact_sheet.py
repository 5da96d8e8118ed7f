"""Contact sheets: training samples and augmentations."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask.structures import BaseInstanceMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope
from pycocotools import mask as mask_api

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms import (
    LazyResize,
    LoadPolygons,
    RenderImage,
    ReplaceBackground,
    ToteCopyPaste,
    ToteCropJitter,
    WarehouseLighting,
    ZoomOutTote,
)
from armbench_mmdet.visualization.instances import Instance, draw_overlay, resized

_MARGIN_PX = 6
_TITLE_PX = 22
_SHOWN_PX = 512
AUGMENTATIONS = (ToteCropJitter, ZoomOutTote, ToteCopyPaste, ReplaceBackground, WarehouseLighting)


def draw_sample(
    image: np.ndarray, masks: Any, boxes: Any, labels: Sequence[int] | np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """A training image (H, W, 3) uint8, BGR, with its masks, boxes and classes; small ones are enlarged.

    Masks are mmdet's, or (N, H, W) uint8 or bool; boxes mmdet's, or (N, 4) x1, y1, x2, y2 in pixels.
    """
    bitmaps = np.asarray(masks.to_ndarray() if isinstance(masks, BaseInstanceMasks) else masks, np.uint8)
    codes = mask_api.encode(np.asfortranarray(bitmaps.transpose(1, 2, 0)))
    rows = np.asarray(boxes.tensor if isinstance(boxes, BaseBoxes) else boxes).tolist()
    names = [class_names[label] if label < len(class_names) else str(label) for label in labels]
    instances = [Instance(code, name, box=box) for code, name, box in zip(codes, names, rows, strict=True)]
    return draw_overlay(image, instances)


def make_sheet(cells: Sequence[np.ndarray], titles: Sequence[str], columns: int, cell_px: int = 360) -> np.ndarray:
    """Pictures (H, W, 3) uint8, BGR, in rows of ``columns``, scaled to a longest side of ``cell_px``, under titles."""
    rows = []
    for start in range(0, len(cells), columns):
        pictures = [resized(cell, cell_px) for cell in cells[start : start + columns]]
        height = _TITLE_PX + max(picture.shape[0] for picture in pictures) + _MARGIN_PX
        row = np.full((height, columns * (cell_px + _MARGIN_PX) + _MARGIN_PX, 3), 255, np.uint8)
        for column, picture in enumerate(pictures):
            x = _MARGIN_PX + column * (cell_px + _MARGIN_PX)
            font = (cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
            cv2.putText(row, titles[start + column], (x + 1, _TITLE_PX - 7), *font)
            row[_TITLE_PX : _TITLE_PX + picture.shape[0], x : x + picture.shape[1]] = picture
        rows.append(row)
    return np.concatenate(rows)


def write_sheet(path: Path, sheet: np.ndarray) -> None:
    """Write a sheet to a ``.png`` or ``.jpg`` file.

    Raises:
        InputError: The file is of another kind, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (cv2.haveImageWriter(str(path)) and cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 90])):
        raise InputError(f'contact sheet must end in .png or .jpg, in a folder that can be written, got {str(path)!r}')


def pipeline_sheet(config: Config, num: int, columns: int, cell_px: int, seed: int) -> np.ndarray:
    """At most ``num`` samples exactly as the training data set of ``config`` yields them; ``seed`` decides which."""
    data_set, chosen = _chosen_samples(config, num, seed)
    cells, titles = [], []
    for index in chosen:
        np.random.seed(seed + index)  # noqa: NPY002 - the transforms draw from the global state
        packed = data_set[index]
        image = packed['inputs'].permute(1, 2, 0).clamp(0, 255).byte().numpy()
        found = packed['data_samples'].gt_instances
        masks = found.masks if 'masks' in found else np.zeros((len(found), *image.shape[:2]))
        cells.append(draw_sample(image, masks, found.bboxes, found.labels.tolist(), data_set.metainfo['classes']))
        titles.append(f'{index}: {image.shape[1]}x{image.shape[0]}, {len(found)} instances')
    return make_sheet(cells, titles, columns, cell_px)


def augmentation_sheet(config: Config, columns: int, cell_px: int, seed: int) -> np.ndarray:
    """A row for each custom augmentation, always applied, below one of the images as they are."""
    data_set, chosen = _chosen_samples(config, columns, seed)
    infos = [data_set.get_data_info(index) for index in chosen]
    np.random.seed(seed)  # noqa: NPY002 - the transforms draw from the global state
    return make_sheet(*augmented_cells(infos, data_set.metainfo['classes']), len(infos), cell_px)


def augmented_cells(infos: Sequence[dict], class_names: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    """Pictures and titles of :func:`augmentation_sheet`, row by row, from what a data set gives to its transforms."""
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
            labels = results['gt_bboxes_labels']
            cells.append(draw_sample(results['img'], results['gt_masks'], results['gt_bboxes'], labels, class_names))
            titles.append('unchanged' if augmentation is None else augmentation.__name__)
    return cells, titles


def _chosen_samples(config: Config, num: int, seed: int) -> tuple[Any, list[int]]:
    """The training data set, and ``num`` of its indices, ascending, without repetition."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        data_set = DATASETS.build(config.train_dataloader.dataset)
        data_set.full_init()
    size = len(data_set)
    return data_set, sorted(np.random.default_rng(seed).choice(size, min(num, size), replace=False).tolist())
