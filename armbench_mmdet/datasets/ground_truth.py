"""Ground truth: where it comes from, and itself as columns, from the same index the data set reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from mmengine.logging import print_log

from armbench_mmdet.datasets.coco import CocoImage
from armbench_mmdet.datasets.index import ColumnIndex, open_index
from armbench_mmdet.datasets.release import CLASSES, IGNORED, IMAGE_FOLDER, CategoryMap, assign_categories
from armbench_mmdet.errors import InputError

METAINFO_KEY = 'ground_truth'


class GroundTruth(NamedTuple):
    """What predictions are held against: G annotations, crowds included, as columns, and their images."""

    images: dict[int, CocoImage]  # by id; the ids are the data set's img_id
    categories: dict[int, str]  # the name of each category id, in the order of the labels
    ids: np.ndarray  # (G,) int64, the file's
    image_ids: np.ndarray  # (G,) int64
    category_ids: np.ndarray  # (G,) int64
    boxes: np.ndarray  # (G, 4) float64, x, y, width and height in px
    areas: np.ndarray  # (G,) float64, px²
    crowds: np.ndarray  # (G,) bool
    masks: Any  # at an integer the segmentation in any of COCO's forms, at an array those of some

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> GroundTruth:
        """The ground truth in a COCO-format dict whose annotations have boxes, areas and masks."""
        rows = document['annotations']
        kinds: dict[str, Any] = dict.fromkeys(('id', 'image_id', 'category_id'), np.int64)
        kinds |= {'bbox': (np.float64, 4), 'area': np.float64, 'iscrowd': np.bool_, 'segmentation': object}
        columns = (np.fromiter((row[key] for row in rows), kind, len(rows)) for key, kind in kinds.items())
        images = {image.id: image for image in msgspec.convert(document['images'], list[CocoImage])}
        return cls(images, {category['id']: category['name'] for category in document['categories']}, *columns)

    def of_images(self, image_ids: Iterable[int]) -> GroundTruth:
        """That of some images."""
        images = {image_id: self.images[image_id] for image_id in image_ids}
        return self._replace(images=images).take(np.isin(self.image_ids, list(images)))

    def of_classes(self, names: Sequence[str]) -> GroundTruth:
        """That of some classes, in their order: label i is the ith category.

        Raises:
            InputError: A class is no category.
        """
        by_name = {name: number for number, name in self.categories.items()}
        if unknown := [name for name in names if name not in by_name]:
            raise InputError(f'classes must be categories of the ground truth, {sorted(by_name)}, got {unknown}')
        categories = {by_name[name]: name for name in names}
        return self._replace(categories=categories).take(np.isin(self.category_ids, list(categories)))

    def take(self, rows: np.ndarray) -> GroundTruth:
        """Some annotations, by number or by ``(G,) bool``; all images and categories stay."""
        return self._replace(**{name: getattr(self, name)[rows] for name in self._fields[2:]})


@dataclass(frozen=True)
class _Masks:
    """The masks of some rows of an index, read when they are asked for."""

    index: ColumnIndex
    rows: np.ndarray

    def __getitem__(self, place: Any) -> Any:
        rows = self.rows[place]
        return _Masks(self.index, rows) if np.ndim(rows) else self.index.segmentation(int(rows))


@dataclass(frozen=True)
class GroundTruthSource:
    """Where the ground truth of a data set comes from.

    It lies in a data set's meta information as a plain dict, under one key: mmengine writes that into every checkpoint,
    which must stay readable without unpickling classes.
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

    def load(self) -> GroundTruth:
        """The ground truth, without what cannot be scored: ignored categories and unusable masks, which are logged.

        Category 1 is the tote, 2 the object.

        Raises:
            InputError: The file is broken or has categories that are not ours.
        """
        index = open_index(self.ann_file, self.cache_dir)
        labels = assign_categories(index, self.category_map).rows
        kept = (labels != IGNORED) & index.usable_masks
        if not kept.all():
            ignored = (labels == IGNORED).sum()
            about = f'{ignored} annotations of ignored categories and {(~kept).sum() - ignored} without a usable mask'
            print_log(f'ground truth of {index.ann_file}: left out {about}', 'current', logging.WARNING)
        rows = np.flatnonzero(kept)
        columns = index.image_ids.tolist(), index.file_names(), index.widths.tolist(), index.heights.tolist()
        return GroundTruth(
            {image[0]: CocoImage(*image) for image in zip(*columns, strict=True)},
            dict(enumerate(CLASSES, 1)),
            index.annotation_ids[rows],
            index.image_ids[index.image_rows[rows]],
            labels[rows] + 1,
            index.boxes[rows],
            index.areas[rows],
            index.crowds[rows],
            _Masks(index, rows),
        )
