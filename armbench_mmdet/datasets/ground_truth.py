"""Ground truth: where it comes from, and itself as a COCO-format dict, from the same index the data set reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.datasets.release import CLASSES, IGNORED, IMAGE_FOLDER, CategoryMap, assign_categories
from armbench_mmdet.errors import InputError

METAINFO_KEY = 'ground_truth'


@dataclass(frozen=True)
class GroundTruthSource:
    """Where the ground truth of a data set comes from.

    It lies in a data set's meta information as a plain dict, under one key: mmengine writes that into every checkpoint,
    which must stay readable without unpickling classes. What the data are called follows from the file that is read.

    Attributes:
        ann_file: COCO annotation file.
        image_folder: Put before each ``file_name``.
        category_map: See :func:`~armbench_mmdet.datasets.release.assign_categories`.
        cache_dir: See :func:`~armbench_mmdet.datasets.index.open_index`.
    """

    ann_file: str
    image_folder: str | None = None
    category_map: CategoryMap | None = None
    cache_dir: str | None = None

    @property
    def subset(self) -> str:
        """The name of the folder that the annotation file lies in."""
        return Path(self.ann_file).absolute().parent.name

    @property
    def split(self) -> str:
        """The name of the annotation file."""
        return Path(self.ann_file).stem

    @classmethod
    def of(cls, metainfo: Mapping[str, Any] | None) -> GroundTruthSource | None:
        """The source that a data set's meta information names, None if it names none."""
        fields = (metainfo or {}).get(METAINFO_KEY)
        return None if fields is None else cls(**fields)

    def as_metainfo(self) -> dict[str, Any]:
        """What a data set adds to its meta information."""
        return {METAINFO_KEY: asdict(self)}

    @classmethod
    def from_location(cls, location: Mapping[str, Any]) -> GroundTruthSource:
        """The inverse of :meth:`location`, for a location that has an ``ann_file``."""
        beside = {'image_folder': str(Path(location['ann_file']).parent / IMAGE_FOLDER)}
        return cls(**beside | {key: location[key] for key in cls.__dataclass_fields__ if key in location})

    def location(self) -> dict[str, Any]:
        """What a result file keeps of it, so that pictures can be drawn later: absolute paths, nothing that is None."""
        paths = {'ann_file': self.ann_file, 'image_folder': self.image_folder, 'cache_dir': self.cache_dir}
        location: dict[str, Any] = {key: str(Path(path).absolute()) for key, path in paths.items() if path}
        if self.category_map:
            location['category_map'] = {str(name): target for name, target in self.category_map.items()}
        return location

    def load(self) -> dict[str, Any]:
        """The ground truth itself, see :func:`load_ground_truth`."""
        return load_ground_truth(self.ann_file, self.category_map, self.cache_dir)


def load_ground_truth(
    ann_file: Path | str, category_map: CategoryMap | None = None, cache_dir: Path | str | None = None
) -> dict[str, Any]:
    """Build the ground truth of a file for COCO evaluation.

    Annotation ids are counted from 1, because COCOeval takes id 0 for "unmatched"; the file's id is ``source_id``.
    Boxes and areas that the file does not give are those of the masks. Only what cannot be scored is left out, and
    logged: annotations of an ignored category, and those whose mask is missing, degenerate or broken.

    Args:
        ann_file: COCO annotation file.
        category_map: As for :class:`GroundTruthSource`.
        cache_dir: As for :class:`GroundTruthSource`.

    Returns:
        ``images`` (ids as the data set's ``img_id``), ``annotations`` (``category_id`` 1 = tote, 2 = object; crowds
        included) and ``categories``.

    Raises:
        InputError: The file is broken or has categories that are not ours.
    """
    index = open_index(ann_file, cache_dir)
    labels = assign_categories(index, category_map).rows
    kept = (labels != IGNORED) & index.usable_masks
    if not kept.all():
        ignored = (labels == IGNORED).sum()
        about = f'{ignored} annotations of ignored categories and {(~kept).sum() - ignored} without a usable mask'
        print_log(f'ground truth of {index.ann_file}: left out {about}', 'current', logging.WARNING)
    image_ids, widths, heights = index.image_ids.tolist(), index.widths.tolist(), index.heights.tolist()
    return {
        'images': [
            {'id': image_ids[i], 'file_name': name, 'width': widths[i], 'height': heights[i]}
            for i, name in enumerate(index.file_names())
        ],
        'annotations': [
            {
                'id': number,
                'source_id': int(index.annotation_ids[row]),
                'image_id': image_ids[index.image_rows[row]],
                'category_id': int(labels[row]) + 1,
                'bbox': index.boxes[row].tolist(),
                'area': float(index.areas[row]),
                'iscrowd': int(index.crowds[row]),
                'segmentation': index.segmentation(row),
            }
            for number, row in enumerate(np.flatnonzero(kept).tolist(), 1)
        ],
        'categories': [{'id': label + 1, 'name': name} for label, name in enumerate(CLASSES)],
    }


def only_classes(ground_truth: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """The ground truth of some classes, its categories in their order: label i is category i.

    Raises:
        InputError: A class is no category of the ground truth.
    """
    by_name = {category['name']: category for category in ground_truth['categories']}
    unknown = [name for name in classes if name not in by_name]
    if unknown:
        raise InputError(f'classes must be categories of the ground truth, {sorted(by_name)}, got {unknown}')
    categories = [by_name[name] for name in classes]
    kept = {category['id'] for category in categories}
    annotations = [a for a in ground_truth['annotations'] if a['category_id'] in kept]
    return {**ground_truth, 'categories': categories, 'annotations': annotations}
