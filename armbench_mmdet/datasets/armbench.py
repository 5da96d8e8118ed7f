"""ARMBench's segmentation data, any COCO file of totes and objects, and procedural totes, as mmdet data sets."""

from __future__ import annotations

import logging
import mmap
import os.path as osp
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init
from numpy.typing import NDArray

from armbench_mmdet.datasets import release
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.datasets.images import EXIF_IS_OBEYED, exif_orientation, folder_of_images, log_once, note_image
from armbench_mmdet.datasets.index import ColumnIndex, SegmentationKind, open_index
from armbench_mmdet.datasets.release import CLASSES, IGNORED, SPLITS, SUBSETS, CategoryAssignment, CategoryMap
from armbench_mmdet.errors import InputError, UnreadableImageError

KEPT_IN_PART = 'annotations that lost a degenerate polygon and keep others'

_SHOWN_IDS = 3
_SAMPLED, _HEADER_BYTES = 16, 2**17

Reasons = dict[str, NDArray[np.bool_]]
"""Which records are left out, by reason."""


def select_annotations(index: ColumnIndex, labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Reasons]:
    """Choose the annotations that become instances, by their ``(A,) int64`` labels, negative for other categories.

    Returns:
        ``(A,) bool``, and for each reason ``(A,) bool``: what was left out, under the first reason that holds.
    """
    kinds = index.segmentation_kinds
    x, y, w, h = index.boxes.T
    image_w, image_h = index.widths[index.image_rows], index.heights[index.image_rows]
    inside = (np.minimum(x + w, image_w) > np.maximum(x, 0)) & (np.minimum(y + h, image_h) > np.maximum(y, 0))
    reasons: Reasons = {
        'annotations of an ignored category': labels < 0,
        'annotations flagged "ignore"': index.ignores,
        'annotations without a mask': kinds == SegmentationKind.MISSING,
        'annotations with degenerate polygons only': kinds == SegmentationKind.DEGENERATE,
        'annotations with a mask that does not fit the image': kinds == SegmentationKind.BROKEN,
        'annotations with a box outside the image': ~inside,
        'annotations with a box under 1 px': (w < 1) | (h < 1),
        'annotations with no area': index.areas <= 0,
    }
    kept = np.ones(len(index.annotation_ids), np.bool_)
    for reason, holds in reasons.items():
        reasons[reason] = kept & holds
        kept &= ~holds
    return kept, {**reasons, KEPT_IN_PART: kept & (index.dropped_rings > 0)}


_PLACEHOLDER_GREY = 114


@DATASETS.register_module()
class ArmbenchDataset(CocoDataset):
    """A subset and split of ARMBench, chosen by name.

    To its users it is a ``CocoDataset``: the same records come out. It reads the column index instead of the JSON,
    assigns classes by name ignoring case, refuses what it does not understand, and logs a table of what it left out.
    Pickling and forking cost nothing, so ``serialize_data`` has no effect. To train on several subsets, concatenate
    them: ``dict(type='ConcatDataset', datasets=[...])``; evaluate them one by one, for their images may share ids.

    Args:
        subset: ``mix-object-tote``, ``zoomed-out-tote-transfer-set`` or ``same-object-transfer-set``.
        split: ``train``, ``val`` or ``test``.
        data_root: Folder of the subsets; else ``ARMBENCH_ROOT``, else ``data/armbench-segmentation-0.1``.
        category_map: For files with other category names, see
            :func:`~armbench_mmdet.datasets.release.assign_categories`.
        cache_dir: See :func:`~armbench_mmdet.datasets.index.open_index`.
        ann_file: A COCO file of your own, instead of ``subset`` and ``split``.
        data_prefix: ``dict(img=...)``, its images; by default in ``images`` beside it, or beside it as Roboflow's are.
        metainfo: ``classes`` may name one of the two classes only; annotations of the other are then left out.
        corrupt_images: What to do with an image that ``RenderImage`` cannot read. ``error`` ends the run; ``skip``
            takes the next image that can be read in training, and in testing a grey one, whose predictions the metric
            leaves out and whose file it lists. Both are counted and listed (``unreadable_images``).
        **kwargs: As for ``CocoDataset``: ``pipeline``, ``filter_cfg``, ``test_mode``, ``indices``, ``lazy_init``, …

    Attributes:
        columns: The annotation file; ``data_list`` has the rows there of the images.
        ground_truth: Where the metric finds what it compares with.

    Raises:
        InputError: Files are missing or broken, categories are not ours, or there is no usable annotation.
    """

    METAINFO = {'classes': CLASSES, 'palette': [(0, 114, 189), (237, 125, 49)]}  # noqa: RUF012

    def __init__(
        self,
        subset: str = SUBSETS[0],
        split: str = SPLITS[0],
        data_root: str | Path | None = None,
        category_map: CategoryMap | None = None,
        cache_dir: str | Path | None = None,
        ann_file: str = '',
        data_prefix: dict[str, str] | None = None,
        corrupt_images: str = 'error',
        **kwargs: Any,
    ) -> None:
        self.corrupt_images = release.check_choice('corrupt_images', corrupt_images, ('error', 'skip'))
        self.subset = release.check_choice('subset', subset, SUBSETS)
        self.split = release.check_choice('split', split, SPLITS)
        if not isinstance(category_map, Mapping | None):
            raise InputError(f"category_map must be a dict such as {{'parcel': 'object'}}, got {category_map!r}")
        if data_prefix is not None and list(data_prefix) != ['img']:
            raise InputError(f"data_prefix must be dict(img='folder'), got {data_prefix!r}")
        root = release.resolve_data_root(data_root)
        file = root / (ann_file or f'{subset}/{split}.json')
        images = root / data_prefix['img'] if data_prefix else folder_of_images(file)
        known = None if category_map is None else dict(category_map)
        cache = None if cache_dir is None else str(cache_dir)
        self.ground_truth = GroundTruthSource(str(file), str(images), known, cache)
        lazy_init = kwargs.pop('lazy_init', False)
        fixed = {'data_prefix': {'img': str(images)}, 'serialize_data': False, 'lazy_init': True}
        super().__init__(ann_file=str(file), **kwargs | fixed)
        self.data_root = str(root)
        self._metainfo.update(self.ground_truth.as_metainfo())
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Open the index, choose what is used, and log a table of what is not, once per process."""
        if not self._fully_initialized:
            super().full_init()
            self._log_table()

    def load_data_list(self) -> NDArray[np.int64]:
        """Open the column index and choose the annotations that become instances; returns the rows of its images."""
        ann_file = release.require_existing(Path(self.ann_file), 'annotation file')
        release.require_existing(Path(self.data_prefix['img']), 'image folder')
        index = open_index(ann_file, self.ground_truth.cache_dir)
        assignment = release.assign_categories(index, self.ground_truth.category_map)
        self._notes = [*(note.detail for note in index.notes), *assignment.notes]
        labels = self._labels_in_classes(assignment)
        kept, left_out = select_annotations(index, labels)
        self._skipped: dict[str, NDArray[np.int64]] = {}
        self._skip(left_out, index.annotation_ids)
        if not kept.any():
            remedy = f'  `tools/infer.py CONFIG CHECKPOINT {ann_file}` predicts its images'
            about = [*self._notes, *self._skipped_rows()] if len(index.annotation_ids) else [remedy]
            classes = ' or '.join(self._metainfo['classes'])
            found = f'got none of {len(index.annotation_ids)} (in {ann_file})'
            raise InputError('\n'.join([f'annotation file must have usable annotations of {classes}, {found}', *about]))
        self.columns = index
        self._in_classes = labels != IGNORED
        self._annotations = np.flatnonzero(kept)
        self._labels = labels[kept]
        self._starts = np.concatenate([[0], np.cumsum(kept)])[index.annotation_starts]
        # Flags of the images, in memory that forked processes share.
        self._unreadable = np.frombuffer(mmap.mmap(-1, len(index.image_ids)), np.uint8)
        return np.arange(len(index.image_ids))

    def _skip(self, left_out: Reasons, ids: NDArray[np.int64]) -> None:
        self._skipped |= {reason: ids[rows] for reason, rows in left_out.items() if rows.any()}

    def _skipped_rows(self) -> list[str]:
        """Table rows: count, reason, first ids."""
        rows = []
        for reason, ids in self._skipped.items():
            shown = ', '.join(map(str, ids[:_SHOWN_IDS].tolist()))
            rows.append(f'  {len(ids):>9,}  {reason} (ids {shown}{", …" if len(ids) > _SHOWN_IDS else ""})')
        return rows

    def _labels_in_classes(self, assignment: CategoryAssignment) -> NDArray[np.int64]:
        """``(A,) int64`` labels as indices into ``metainfo['classes']``; sets ``cat_ids`` and ``cat2label``."""
        classes = tuple(self._metainfo['classes'])
        if not classes or not set(classes) <= set(CLASSES):
            raise InputError(f'metainfo classes must be some of {CLASSES}, got {classes}')
        to_label = np.array([*(classes.index(c) if c in classes else IGNORED for c in CLASSES), IGNORED])
        self.cat2label = {c: int(to_label[label]) for c, label in assignment.labels.items() if to_label[label] >= 0}
        self.cat_ids = list(self.cat2label)
        return to_label[assignment.rows]

    def filter_data(self) -> NDArray[np.int64]:
        """Leave out images as stock ``CocoDataset`` does: empty ones and small ones, in training only."""
        if self.test_mode or self.filter_cfg is None:
            return self.data_list
        index = self.columns
        annotated: NDArray[np.bool_] = np.ones(len(index.image_ids), np.bool_)
        if self.filter_cfg.get('filter_empty_gt', False):
            annotated = np.bincount(index.image_rows[self._in_classes], minlength=len(index.image_ids)) > 0
        large = np.minimum(index.widths, index.heights) >= self.filter_cfg.get('min_size', 0)
        left_out = {'images without annotations': ~annotated, 'images under min_size': annotated & ~large}
        self._skip(left_out, index.image_ids)
        if not (annotated & large).any():
            raise InputError(f'filter_cfg must leave some images, got none with {self.filter_cfg} (in {self.ann_file})')
        return np.flatnonzero(annotated & large)

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The record of an image as stock ``CocoDataset.parse_data_info`` writes it, made afresh: change it freely."""
        index, image, part = self.columns, int(self.data_list[idx]), self._part(idx)
        rows = self._annotations[part]
        boxes = index.boxes[rows]
        boxes[:, 2:] += boxes[:, :2]
        columns = rows.tolist(), index.crowds[rows].tolist(), boxes.tolist(), self._labels[part].tolist()
        return {
            'img_path': osp.join(self.data_prefix['img'], index.file_name(image)),
            'img_id': int(index.image_ids[image]),
            'seg_map_path': None,
            'height': int(index.heights[image]),
            'width': int(index.widths[image]),
            'instances': [
                {'ignore_flag': int(crowd), 'bbox': box, 'bbox_label': label, 'mask': index.segmentation(row)}
                for row, crowd, box, label in zip(*columns, strict=True)
            ],
            'sample_idx': idx if idx >= 0 else len(self) + idx,
        }

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of an image's instances, as ``ClassBalancedDataset`` wants them."""
        return self._labels[self._part(idx)].tolist()

    def _part(self, idx: int) -> slice:
        """Where the annotations of an image are in the list of those that are kept."""
        image = self.data_list[idx]
        return slice(*self._starts[image : image + 2].tolist())

    def prepare_data(self, idx: int) -> Any:
        """Send an image through the pipeline; see ``corrupt_images`` for one that cannot be read."""
        for step in range(len(self)):
            index = (idx + step) % len(self) if step else idx
            record = self.get_data_info(index)
            note_image(index, record['img_path'])
            try:
                return self.pipeline(record)
            except UnreadableImageError as error:
                if self.corrupt_images == 'error':
                    raise UnreadableImageError(
                        f'{error}; index {index} in the data set; tools/check_data.py --json lists all such files'
                    ) from error
                row = self.data_list[index]
                if not self._unreadable[row]:
                    self._unreadable[row] = 1
                    log_once(f'skipped (index {index}): {error}')
            if self.test_mode:
                return self._grey_image(index)
        raise InputError(f'images must be readable, got none of {len(self)} (in {self.ann_file})')

    def _grey_image(self, index: int) -> Any:
        """A sample of the annotated size in the place of an unreadable one, marked ``unreadable``."""
        record = self.get_data_info(index)
        shape = (record['height'], record['width'])
        image = np.full((*shape, 3), _PLACEHOLDER_GREY, np.uint8)
        sample = self.pipeline({**record, 'img': image, 'img_shape': shape, 'ori_shape': shape})
        sample['data_samples'].set_metainfo({'unreadable': record['img_path']})
        return sample

    def unreadable_images(self) -> list[str]:
        """Paths of the images that ``corrupt_images='skip'`` has met so far, in all processes."""
        return [self.get_data_info(i)['img_path'] for i in np.flatnonzero(self._unreadable[self.data_list]).tolist()]

    @property
    def skipped(self) -> dict[str, NDArray[np.int64]]:
        """The ids of annotations and images that were left out, by reason."""
        self.full_init()
        return self._skipped

    def _log_table(self) -> None:
        classes = self._metainfo['classes']
        counted = np.isin(self.columns.image_rows[self._annotations], self.data_list)
        labels, is_crowd = self._labels[counted], self.columns.crowds[self._annotations][counted]
        used, crowds = (np.bincount(labels[rows], minlength=len(classes)).tolist() for rows in (~is_crowd, is_crowd))
        remedy = '; set "iscrowd" to 0 if each is one instance (CVAT writes masks of its brush with 1)'
        if not any(used) and self._indices is None:
            found = f'{sum(crowds)} crowd regions{remedy}' if any(crowds) else 'none'
            raise InputError(f'annotation file must have instances to use, got {found} (in {self.ann_file})')
        instances = ', '.join(f'{n:,} {name}s' for n, name in zip(used, classes, strict=True))
        also = f' and {sum(crowds):,} crowd regions, which are not used' if any(crowds) else ''
        end = 'left out:' if self._skipped else 'nothing left out'
        heading = f'{self.ann_file}: {len(self):,} images, {instances}{also}; {end}'
        log_once('\n'.join([heading, *self._skipped_rows()]), logging.INFO)
        effect = 'it has no score here' if self.test_mode else 'the model cannot learn it'
        for name, n, crowd in zip(classes, used, crowds, strict=True):
            if not n:
                why = f'; all {crowd} are crowds{remedy}' if crowd else ''
                self._notes.append(f'no {name} to use: {effect}{why}')
        for note in [*self._notes, *self._exif_notes()]:
            log_once(f'{self.ann_file}: {note}')

    def _exif_notes(self) -> list[str]:
        """A note if some of a few images would be turned by 180° or mirrored, which no size tells."""
        for index in range(0, len(self), max(len(self) // _SAMPLED, 1)):
            path = Path(self.get_data_info(index)['img_path'])
            with suppress(OSError), path.open('rb') as file:
                if 1 < (orientation := exif_orientation(file.read(_HEADER_BYTES))) < 5:
                    return [f'{path} {EXIF_IS_OBEYED.format(orientation)}']
        return []


@DATASETS.register_module()
class MinibenchDataset(ArmbenchDataset):
    """An :class:`ArmbenchDataset` that renders its images when its folder is not there yet.

    ``data_root`` is ``data/minibench`` by default, ``train_images`` the number of training pictures to render, else
    400.
    """

    def __init__(self, data_root: str | Path | None = None, train_images: int | None = None, **kwargs: Any) -> None:
        self.train_images = train_images
        super().__init__(data_root=data_root or 'data/minibench', **kwargs)

    def load_data_list(self) -> NDArray[np.int64]:
        """Make the data if need be, then load them."""
        from armbench_mmdet.minibench import ensure_minibench

        ensure_minibench(Path(self.data_root), self.train_images)
        return super().load_data_list()


def is_procedural(data_root: str | Path | None, dataset: str = '') -> bool:
    """Whether the data are minibench's drawings: by the name of the data set's class, or by the mark in its folder."""
    from armbench_mmdet.minibench.writer import MARKER

    is_marked = data_root is not None and (Path(data_root) / MARKER).is_file()
    return is_marked or dataset == MinibenchDataset.__name__
