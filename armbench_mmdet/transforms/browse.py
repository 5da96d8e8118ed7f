"""Contact sheets of a config's training data: as the model gets it, or under each custom augmentation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.contact_sheet import draw_packed, draw_results, make_sheet
from armbench_mmdet.transforms.lazy_geometry import LazyResize
from armbench_mmdet.transforms.load_polygons import LoadPolygons
from armbench_mmdet.transforms.render_image import RenderImage
from armbench_mmdet.transforms.tote_copy_paste import ToteCopyPaste
from armbench_mmdet.transforms.tote_crop_jitter import ToteCropJitter
from armbench_mmdet.transforms.warehouse_lighting import WarehouseLighting
from armbench_mmdet.transforms.zoom_out_tote import ZoomOutTote

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
