"""Records of a data set as a view of the column index, made when they are asked for."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.datasets.index import ColumnIndex, SegmentationKind

KEPT_IN_PART = 'annotations that lost a degenerate polygon and keep others'

_SHOWN_IDS = 3


@dataclass(frozen=True)
class LeftOut:
    """How many records were left out for one reason, and the ids of the first."""

    count: int
    first_ids: tuple[int, ...]


Skipped = dict[str, LeftOut]
"""What was left out, by reason."""


def skip(skipped: Skipped, reason: str, ids: NDArray[np.int64]) -> None:
    """Note that the records with these ids are left out, if there are any."""
    if len(ids):
        skipped[reason] = LeftOut(len(ids), tuple(ids[:_SHOWN_IDS].tolist()))


def skipped_rows(skipped: Skipped) -> list[str]:
    """Table rows: count, reason, first ids."""
    return [
        f'  {one.count:>9,}  {reason} (ids {", ".join(map(str, one.first_ids))}'
        + (', …)' if one.count > len(one.first_ids) else ')')
        for reason, one in skipped.items()
    ]


def select_annotations(
    index: ColumnIndex, labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Choose the annotations that become instances.

    Those that stock ``CocoDataset`` leaves out (flagged ``ignore``, outside the image, under one pixel, of another
    category), and those without a usable mask.

    Args:
        index: The annotation file.
        labels: ``(A,) int64`` label of each annotation, negative for other categories.

    Returns:
        ``(A,) bool``, and for each reason ``(A,) bool``: what was left out, under the first reason that holds.
    """
    kinds = index.segmentation_kinds
    x, y, w, h = index.boxes.T
    image_w, image_h = index.widths[index.image_rows], index.heights[index.image_rows]
    inside = (np.minimum(x + w, image_w) > np.maximum(x, 0)) & (np.minimum(y + h, image_h) > np.maximum(y, 0))
    reasons = {
        'annotations of an ignored category': labels < 0,
        'annotations flagged "ignore"': index.ignores,
        'annotations without a mask': kinds == SegmentationKind.MISSING,
        'annotations with degenerate polygons only': kinds == SegmentationKind.DEGENERATE,
        'annotations with a mask that does not fit the image': kinds == SegmentationKind.BROKEN,
        'annotations with a box outside the image': ~inside,
        'annotations with a box under 1 px': (w < 1) | (h < 1),
        'annotations with no area': index.areas <= 0,
    }
    kept = np.ones(index.num_annotations, np.bool_)
    for reason, holds in reasons.items():
        reasons[reason] = kept & holds
        kept &= ~holds
    return kept, {**reasons, KEPT_IN_PART: kept & (index.dropped_rings > 0)}


class AnnotatedImages:
    """Images with their instances, as stock ``CocoDataset.parse_data_info`` writes them.

    Args:
        index: The annotation file.
        labels: ``(A,) int64`` label of each annotation.
        kept: ``(A,) bool``, annotations that become instances.
        image_folder: Put before each file name.
        extra: Further keys of every record.

    Attributes:
        columns: The annotation file.
        rows: ``(N,) int64``, the rows there of this list's images.
    """

    def __init__(
        self,
        index: ColumnIndex,
        labels: NDArray[np.int64],
        kept: NDArray[np.bool_],
        image_folder: str,
        extra: dict[str, Any],
    ) -> None:
        self.columns = index
        self.rows: NDArray[np.int64] = np.arange(index.num_images)
        self._image_folder = image_folder
        self._extra = extra
        self._annotations = np.flatnonzero(kept)
        self._labels = labels[self._annotations]
        self._starts = np.concatenate([[0], np.cumsum(kept)])[index.annotation_starts]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The record of an image, made afresh."""
        image = int(self.rows[position])
        index = self.columns
        return {
            'img_path': osp.join(self._image_folder, index.file_name(image)),
            'img_id': int(index.image_ids[image]),
            'seg_map_path': None,
            'height': int(index.heights[image]),
            'width': int(index.widths[image]),
            **self._extra,
            'instances': self._instances(image),
        }

    def take(self, positions: Sequence[int] | NDArray[np.int64]) -> AnnotatedImages:
        """The records at these positions, as the same kind of list."""
        taken = copy.copy(self)
        taken.rows = self.rows[np.asarray(positions, np.int64)]
        return taken

    def labels(self, position: int) -> list[int]:
        """Labels of an image's instances."""
        image = int(self.rows[position])
        return self._labels[self._starts[image] : self._starts[image + 1]].tolist()

    def label_counts(self, num_classes: int) -> tuple[list[int], list[int]]:
        """Instances of each label in the images of this list, and crowd regions, which are not used."""
        counted = np.isin(self.columns.image_rows[self._annotations], self.rows)
        labels, crowds = self._labels[counted], self.columns.crowds[self._annotations][counted]
        used, crowd = (np.bincount(labels[crowds == flag], minlength=num_classes).tolist() for flag in (False, True))
        return used, crowd

    def _instances(self, image: int) -> list[dict[str, Any]]:
        index = self.columns
        part = slice(*self._starts[image : image + 2].tolist())
        rows = self._annotations[part]
        boxes = index.boxes[rows]
        boxes[:, 2:] += boxes[:, :2]
        columns = zip(
            rows.tolist(), index.crowds[rows].tolist(), boxes.tolist(), self._labels[part].tolist(), strict=True
        )
        return [
            {'ignore_flag': int(crowd), 'bbox': box, 'bbox_label': label, 'mask': index.segmentation(row)}
            for row, crowd, box, label in columns
        ]
