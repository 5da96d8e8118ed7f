"""What predictions are compared with, as a COCO-format dict, from the same index the data set reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from armbench_mmdet.datasets.categories import CLASSES, IGNORED, CategoryMap, assign_categories
from armbench_mmdet.datasets.index import ColumnIndex, open_index


def load_ground_truth(
    ann_file: Path | str, category_map: CategoryMap | None = None, cache_dir: Path | str | None = None
) -> dict[str, Any]:
    """Build the ground truth of a file for COCO evaluation.

    Annotation ids are counted from 1, because COCOeval takes id 0 for "unmatched"; the file's id is ``source_id``.
    Boxes and areas that the file does not give are those of the masks. Only what cannot be scored is left out, and
    logged: annotations of an ignored category, and those whose mask is missing, degenerate or broken.

    Args:
        ann_file: COCO annotation file.
        category_map: See :func:`~armbench_mmdet.datasets.categories.assign_categories`.
        cache_dir: See :func:`~armbench_mmdet.datasets.index.open_index`.

    Returns:
        ``images`` (ids as the data set's ``img_id``), ``annotations`` (``category_id`` 1 = tote, 2 = object; crowds
        included) and ``categories``.

    Raises:
        InputError: The file is broken or has categories that are not ours.
    """
    index = open_index(ann_file, cache_dir)
    labels = assign_categories(index, category_map).rows
    kept = (labels != IGNORED) & index.usable_masks
    _log_left_out(index, int((labels == IGNORED).sum()), int(((labels != IGNORED) & ~kept).sum()))
    rows = np.flatnonzero(kept)
    image_ids, widths, heights = index.image_ids.tolist(), index.widths.tolist(), index.heights.tolist()
    columns = zip(
        rows.tolist(),
        index.annotation_ids[rows].tolist(),
        index.image_rows[rows].tolist(),
        labels[rows].tolist(),
        index.boxes[rows].tolist(),
        index.areas[rows].tolist(),
        index.crowds[rows].tolist(),
        strict=True,
    )
    return {
        'images': [
            {'id': image_ids[i], 'file_name': name, 'width': widths[i], 'height': heights[i]}
            for i, name in enumerate(index.file_names())
        ],
        'annotations': [
            {
                'id': number,
                'source_id': source_id,
                'image_id': image_ids[image],
                'category_id': label + 1,
                'bbox': box,
                'area': area,
                'iscrowd': int(crowd),
                'segmentation': index.segmentation(row),
            }
            for number, (row, source_id, image, label, box, area, crowd) in enumerate(columns, 1)
        ],
        'categories': [{'id': label + 1, 'name': name} for label, name in enumerate(CLASSES)],
    }


def _log_left_out(index: ColumnIndex, ignored: int, without_mask: int) -> None:
    if ignored or without_mask:
        print_log(
            f'ground truth of {index.ann_file}: left out {ignored} annotations of ignored categories and '
            f'{without_mask} without a usable mask',
            'current',
            logging.WARNING,
        )
