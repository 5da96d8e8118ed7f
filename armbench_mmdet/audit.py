"""The audit of a data set: what it finds, by kind, the checks that find it, and its report."""

import hashlib
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.datasets import coco, images, release
from armbench_mmdet.datasets.armbench import KEPT_IN_PART, select_annotations
from armbench_mmdet.datasets.index import ColumnIndex, open_index, read_sound_records
from armbench_mmdet.errors import InputError, UnreadableImageError

SEVERITIES = ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SHOWN = 5  # examples shown of each kind in each place

KINDS: dict[str, tuple[str, str]] = {
    coco.MALFORMED: (ERROR, 'the annotation file is no JSON'),
    coco.STRUCTURE: (ERROR, 'a record lacks a key or has a value of a wrong type'),
    coco.DUPLICATE_IMAGE: (ERROR, 'an image id occurs twice'),
    coco.DUPLICATE_ANNOTATION: (ERROR, 'an annotation id occurs twice'),
    coco.DUPLICATE_CATEGORY: (ERROR, 'a category id occurs twice'),
    coco.FOREIGN: (ERROR, 'the annotation file is something else than COCO'),
    coco.BOXES: (ERROR, 'boxes are written by another convention'),
    coco.ORPHAN: (ERROR, 'an annotation belongs to no image of the file'),
    'no-annotations': (ERROR, 'the file has no annotation that can be used'),
    'category-unknown': (ERROR, 'annotations have a category that is neither tote nor object'),
    'category-assumed': (WARNING, 'something about the categories was assumed'),
    'class-absent': (NOTE, 'the file has only one of the two classes'),
    'class-unusable': (WARNING, 'a class has annotations, but none to learn or to score'),
    coco.TEXT: (WARNING, 'numbers are not written as COCO writes them'),
    coco.NAN: (WARNING, 'the file has numbers that JSON does not have'),
    coco.FLAT: (WARNING, 'polygons are not written as COCO writes them'),
    coco.NESTED: (WARNING, 'polygons may be meant as holes'),
    coco.AREAS: (WARNING, 'the areas of the file are not those of the masks'),
    coco.NO_AREAS: (NOTE, 'the file gives no areas'),
    coco.REPEATED: (WARNING, 'a split lists the same image file twice'),
    'image-missing': (ERROR, 'the image file is not there'),
    'image-unreadable': (ERROR, 'the image file is damaged, or in no format that can be decoded'),
    'image-size': (ERROR, 'the image file has another size than the annotation file says'),
    'image-exif-rotation': (WARNING, 'EXIF asks for a turn that no size tells; programs differ in whether they obey'),
    'image-dark': (WARNING, 'the image has 16 bits and uses the lower ones, so it is nearly black'),
    'image-copied': (WARNING, 'two image files of a split have the same content'),
    'image-unused': (NOTE, 'an image file belongs to no split'),
    'image-without-annotation': (NOTE, 'the image has no annotation'),
    'image-crowded': (WARNING, 'over 100 instances of a class: COCO scores 100, so nothing can score 1.0 here'),
    'mask-missing': (ERROR, 'the annotation has no mask, so it is left out'),
    'mask-degenerate': (ERROR, 'no polygon has three points and whole points, so the annotation is left out'),
    'mask-broken': (ERROR, 'run lengths do not fit the image, or a polygon is far away; the annotation is left out'),
    'mask-empty': (ERROR, 'the mask covers nothing'),
    'mask-outside': (ERROR, 'the mask lies outside the image'),
    'mask-beyond-edge': (WARNING, 'the mask reaches over the edge of the image'),
    'polygon-dropped': (WARNING, 'a degenerate polygon was dropped, others of the annotation remain'),
    'box-missing': (WARNING, 'the annotation has no box; that of its mask is used'),
    'box-beyond-edge': (NOTE, 'the box reaches over the edge of the image'),
    'box-outside': (ERROR, 'the box lies outside the image, so the annotation is left out'),
    'box-under-1-px': (WARNING, 'the box is under one pixel wide or high, so the annotation is left out'),
    'box-disagrees': (WARNING, 'the box is not the one around the mask'),
    'area-missing': (WARNING, 'the annotation has no area; that of its mask is used'),
    'area-not-positive': (ERROR, 'the area is zero or negative, so the annotation is left out'),
    'area-disagrees': (WARNING, 'the area is not that of the mask'),
    'annotation-repeated': (WARNING, 'two annotations of an image have the same category and box'),
    'annotation-ignored': (NOTE, 'the annotation is flagged "ignore", so it is left out'),
    'crowd': (NOTE, 'the annotation is a crowd region: neither trained on nor counted'),
    'split-missing': (WARNING, 'the annotation file is not there'),
    'split-absent': (NOTE, 'the transfer set has no such split; it is needed for testing only'),
    'subset-missing': (NOTE, 'the data set has no such subset'),
    'same-name-in-splits': (ERROR, 'an image file is in two splits'),
    'same-content-in-splits': (ERROR, 'an image is in two splits, by content'),
}
"""Kind to severity and meaning."""

LEFT_OUT_KINDS = {
    'annotations flagged "ignore"': 'annotation-ignored',
    'annotations without a mask': 'mask-missing',
    'annotations with degenerate polygons only': 'mask-degenerate',
    'annotations with a mask that does not fit the image': 'mask-broken',
    'annotations with a box outside the image': 'box-outside',
    'annotations with a box under 1 px': 'box-under-1-px',
    'annotations with no area': 'area-not-positive',
    KEPT_IN_PART: 'polygon-dropped',
}
"""Why a data set leaves an annotation out, to the kind of finding."""

_EDGE_PX, _ROUNDING_PX = 1.0, 0.01
_BOX_PX, _BOX_FRAC = 2.0, 0.02
_AREA_PX2, _AREA_FRAC = 16.0, 0.05
_LIMIT = 100
_TOLD_BY = {'area-disagrees': coco.AREAS, 'area-missing': coco.NO_AREAS, 'box-disagrees': coco.BOXES}
"""Kinds that are not listed one by one where a pattern of the whole file says them."""

_ROBOFLOW = '_annotations.coco.json'
_CHUNK = 16
_JPEG, _REDUCTION = b'\xff\xd8', 8
_TRANSPOSING = 5
_LINE_CHARACTERS = 500


@dataclass
class Finding:
    """One kind of thing found in one place, ``subset/split``."""

    kind: str
    place: str
    severity: str
    meaning: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Audit:
    """The result: everything found, and images and instances of each split that could be read."""

    root: Path
    splits: list[dict[str, Any]] = field(default_factory=list)
    found: dict[tuple[str, str], Finding] = field(default_factory=dict)
    """By kind and place."""

    def add(self, kind: str, place: str, examples: Iterable[str], count: int | None = None) -> None:
        """Count things found, by a line for each; ``count`` says how many there are if ``examples`` are only some."""
        lines = list(examples)
        number = len(lines) if count is None else count
        if number:
            finding = self.found.setdefault((kind, place), Finding(kind, place, *KINDS[kind]))
            finding.count += number
            finding.examples += lines

    @property
    def findings(self) -> list[Finding]:
        """Errors first, then warnings, then notes; each in the order of :data:`KINDS`."""
        kinds = list(KINDS)
        return sorted(self.found.values(), key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.kind), f.place))

    def count(self, severity: str) -> int:
        """Number of things found of a severity."""
        return sum(finding.count for finding in self.found.values() if finding.severity == severity)

    def exit_status(self, strict: bool) -> int:
        """2 with errors, 1 with warnings if ``strict``, else 0."""
        return 2 if self.count(ERROR) else int(strict and self.count(WARNING) > 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {f'{severity}s': self.count(severity) for severity in SEVERITIES}
        findings = [vars(finding) for finding in self.findings]
        return {'schema': 2, 'root': str(self.root), **counts, 'findings': findings, 'splits': self.splits}


class AnnotationFile(NamedTuple):
    """An annotation file, its name in the findings, and the folder of its images."""

    place: str
    path: Path
    images: Path


class ImageTask(NamedTuple):
    """An image file and the size in px that the annotation file gives."""

    path: Path
    width: int
    height: int


def audit_data_set(root: Path, subsets: tuple[str, ...] = release.SUBSETS, **options: Any) -> Audit:
    """Check all splits of a data set folder, ARMBench's or Roboflow's; nothing stops it before it has seen everything.

    Raises:
        InputError: The folder is missing, or has neither ARMBench's folders nor any with ``_annotations.coco.json``.
    """
    release.require_existing(root, 'data folder')
    audit, files = Audit(root), list[AnnotationFile]()
    if not any((root / subset).is_dir() for subset in subsets):
        exported = sorted([*root.glob(_ROBOFLOW), *root.glob(f'*/{_ROBOFLOW}')])
        if exported:
            return audit_own_files(exported, **options)
        raise InputError(
            f'DATA_ROOT must have at least one of the folders {", ".join(subsets)}, or folders with {_ROBOFLOW}, '
            f'got none (in {root}); for a file of your own use --ann-file FILE --images FOLDER'
        )
    for subset in subsets:
        folder = root / subset
        if not folder.is_dir():
            audit.add('subset-missing', subset, [str(folder)])
            continue
        for split in release.SPLITS:
            file = AnnotationFile(f'{subset}/{split}', folder / f'{split}.json', folder / release.IMAGE_FOLDER)
            if file.path.is_file():
                files.append(file)
            else:
                is_needed = subset == release.SUBSETS[0] or split == release.SPLITS[-1]
                audit.add('split-missing' if is_needed else 'split-absent', file.place, [str(file.path)])
    return _audit_files(audit, files, **options)


def audit_own_files(paths: Sequence[Path], folder: Path | None = None, **options: Any) -> Audit:
    """Check COCO files of any layout, with their images in a folder, else in ``images`` beside each, or beside it.

    Raises:
        InputError: A file or the folder is missing.
    """
    missing = [path for path in paths if not path.is_file()] + ([folder] if folder and not folder.is_dir() else [])
    if missing:
        raise InputError(f'--ann-file and --images must be existing files and a folder, got {str(missing[0])!r}')
    files = [AnnotationFile(str(path), path, folder or images.folder_of_images(path)) for path in paths]
    root = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    return _audit_files(Audit(root), files, **options)


def _audit_files(
    audit: Audit,
    files: list[AnnotationFile],
    category_map: release.CategoryMap | None = None,
    workers: int | None = None,
) -> Audit:
    """Check annotation files, and their images in so many processes, by default one a core; returns the audit."""
    listed = {file.place: _audit_file(audit, file, category_map) for file in tqdm(files, 'annotations', unit='file')}
    _compare_paths(audit, listed, {file.images for file in files})
    _audit_images(audit, listed, workers or os.cpu_count() or 1)
    return audit


def _audit_file(audit: Audit, file: AnnotationFile, category_map: release.CategoryMap | None) -> list[ImageTask]:
    """Check one annotation file; returns the images that it lists."""
    place = file.place
    try:
        index = open_index(file.path)
    except InputError:
        index, problems = read_sound_records(file.path)
        for problem in problems:
            audit.add(problem.kind, place, [problem.detail])
    if len(index.image_ids) == 0:
        audit.add('no-annotations', place, [str(file.path)])
        return []
    labels: NDArray[np.int64] = np.zeros(len(index.annotation_ids), np.int64)
    classes: tuple[str, ...] = ()
    try:
        assignment = release.assign_categories(index, category_map)
    except InputError as error:
        audit.add('category-unknown', place, [str(error)])
    else:
        labels, classes = assignment.rows, release.CLASSES
        audit.add('category-assumed', place, assignment.notes)
        present = assignment.labels.values()
        audit.add('class-absent', place, [name for label, name in enumerate(classes) if label not in present])
    for note in index.notes:
        audit.add(note.kind, place, [note.detail])
    _check_annotations(audit, place, index, labels, classes)
    usable = index.usable_masks & ~index.crowds
    counts = {name: int((usable & (labels == label)).sum()) for label, name in enumerate(classes)}
    audit.splits.append({'place': place, 'images': len(index.image_ids), 'instances': counts})
    sizes = zip(index.file_names(), index.widths.tolist(), index.heights.tolist(), strict=True)
    return [ImageTask(Path(os.path.normpath(file.images / name)), width, height) for name, width, height in sizes]


def _check_annotations(
    audit: Audit, place: str, index: ColumnIndex, labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Check the annotations of a file by their ``(A,) int64`` labels."""
    kept, left_out = select_annotations(index, labels)
    used = kept & ~index.crowds
    if not used.any():
        audit.add('no-annotations', place, [f'{index.crowds.sum()} of {len(used)} are crowd regions'])
    for label, name in enumerate(classes):
        number, crowds = (int(rows.sum()) for rows in (labels == label, (labels == label) & index.crowds))
        if number and not used[labels == label].any():
            audit.add('class-unusable', place, [f'{name}: {number} annotations, {crowds} of them crowd regions'])
    crowded = np.bincount(index.image_rows[used] * 2 + labels[used], minlength=2 * len(index.image_ids)) > _LIMIT
    without = np.diff(index.annotation_starts) == 0
    for kind, found in (('image-without-annotation', without), ('image-crowded', crowded.reshape(-1, 2).any(axis=1))):
        rows = np.flatnonzero(found).tolist()
        audit.add(kind, place, map(index.file_name, rows[:SHOWN]), len(rows))
    excluded = [(kind, left_out[reason], '', None) for reason, kind in LEFT_OUT_KINDS.items()]
    for kind, found, words, values in [*excluded, *_check_masks_and_boxes(index), *_check_areas(index)]:
        if (_TOLD_BY.get(kind), place) in audit.found:
            continue
        rows = np.flatnonzero(found).tolist()
        examples = [
            f'annotation {index.annotation_ids[row]} of {index.file_name(int(index.image_rows[row]))}'
            + ('' if values is None else words.format(values[row]))
            for row in rows[:SHOWN]
        ]
        audit.add(kind, place, examples, len(rows))


Found = tuple[str, NDArray[np.bool_], str, NDArray[np.float64] | None]
"""A kind, which of the annotations are of it, and a number of each with the words around it."""


def _check_masks_and_boxes(index: ColumnIndex) -> Iterator[Found]:
    usable, given = index.usable_masks, index.box_given
    x1, y1, x2, y2 = index.extents.T
    width, height = index.widths[index.image_rows], index.heights[index.image_rows]
    outside = usable & ((x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height))
    beyond_px = np.max([-x1, -y1, x2 - width, y2 - height, np.zeros_like(x1)], axis=0)
    yield 'mask-outside', outside, '', None
    yield 'mask-beyond-edge', usable & ~outside & (beyond_px > _EDGE_PX), ': by {:.1f} px', beyond_px
    x, y, w, h = index.boxes.T
    off_px = np.abs([x - x1, y - y1, x + w - x2, y + h - y2]).max(0)
    allowed_px = np.maximum(_BOX_PX, _BOX_FRAC * np.maximum(x2 - x1, y2 - y1))
    compared = given & usable & (x2 > x1) & (y2 > y1)
    yield 'box-missing', ~given, '', None
    yield 'box-beyond-edge', given & (np.min([x, y, width - x - w, height - y - h], axis=0) < -_ROUNDING_PX), '', None
    yield 'box-disagrees', compared & (off_px > allowed_px), ': by {:.1f} px', off_px
    keys = np.column_stack([index.image_rows, index.category_ids, index.boxes])
    first = np.unique(keys, axis=0, return_index=True)[1]
    yield 'annotation-repeated', np.isin(np.arange(len(keys)), first, invert=True), '', None
    yield 'crowd', index.crowds, '', None


def _check_areas(index: ColumnIndex) -> Iterator[Found]:
    """Compare with the area inside the polygon first, and count pixels only where that disagrees."""
    measured_px2 = np.full(len(index.annotation_ids), np.nan)
    for row in np.flatnonzero(np.diff(index.polygon_starts)).tolist():
        measured_px2[row] = sum(cv2.contourArea(points.astype(np.float32)) for points in index.polygons(row))
    x1, y1, x2, y2 = index.extents.T
    slack_px2 = (x2 - x1) + (y2 - y1) + _AREA_PX2
    suspect = index.usable_masks & ~((np.abs(index.areas - measured_px2) <= slack_px2) & (measured_px2 > 0.5))
    for row in np.flatnonzero(suspect).tolist():
        measured_px2[row] = index.mask_area(row)
    allowed_px2 = np.maximum(_AREA_PX2, _AREA_FRAC * measured_px2)
    differs = suspect & index.area_given & (index.areas > 0) & (np.abs(index.areas - measured_px2) > allowed_px2)
    yield 'area-missing', ~index.area_given, '', None
    yield 'mask-empty', suspect & (measured_px2 == 0), '', None
    yield 'area-disagrees', differs, ': the mask has {:.0f} px', measured_px2


def _compare_paths(audit: Audit, listed: dict[str, list[ImageTask]], folders: set[Path]) -> None:
    """Image files in two splits, and in none."""
    places: dict[Path, list[str]] = {}
    for place, tasks in listed.items():
        for path in dict.fromkeys(task.path for task in tasks):
            places.setdefault(path, []).append(place)
    for path, found in sorted(places.items()):
        if len(found) > 1:
            audit.add('same-name-in-splits', ' + '.join(found), [str(path)])
    for folder in sorted(folders):
        files = (Path(os.path.normpath(path)) for path in folder.rglob('*') if path.suffix.lower() in images.SUFFIXES)
        unused = sorted(path.relative_to(os.path.normpath(folder)).as_posix() for path in {*files} - places.keys())
        audit.add('image-unused', str(folder), unused)


def _audit_images(audit: Audit, listed: dict[str, list[ImageTask]], workers: int) -> None:
    """Check each file once, even if several splits list it."""
    places_of: dict[ImageTask, list[str]] = {}
    for place, tasks in listed.items():
        for task in dict.fromkeys(tasks):
            places_of.setdefault(task, []).append(place)
    by_content: dict[str, dict[str, set[str]]] = {}  # to the names of each place
    with ProcessPoolExecutor(workers) as pool:
        is_alone = workers == 1 or len(places_of) <= _CHUNK
        checks = map(check_image, places_of) if is_alone else pool.map(check_image, places_of, chunksize=_CHUNK)
        checked = zip(places_of.items(), tqdm(checks, 'images', len(places_of), unit='image'), strict=True)
        for (task, places), (found, content) in checked:
            for place in places:
                for kind, detail in found:
                    audit.add(kind, place, [detail])
                if content:
                    by_content.setdefault(content, {}).setdefault(place, set()).add(task.path.name)
    for names in by_content.values():
        if len(names) > 1:
            line = ', '.join(f'{name} in {place}' for place, copies in names.items() for name in sorted(copies))
            audit.add('same-content-in-splits', ' + '.join(names), [line])
        for place, copies in names.items():
            if len(copies) > 1:
                audit.add('image-copied', place, [', '.join(sorted(copies))])


def check_image(task: ImageTask) -> tuple[list[tuple[str, str]], str | None]:
    """Decode one image file as training does, a JPEG at an eighth of its size, and compare it with its task.

    Returns:
        Kinds found with details, and a digest of the content if it could be read.
    """
    path, width, height = task
    try:
        content = images.read_bytes(path)
        image = images.decode_image(content, path, _REDUCTION if content.startswith(_JPEG) else 1)
        size = images.image_size(content, path)
    except UnreadableImageError as error:
        return [('image-unreadable' if path.exists() else 'image-missing', str(error))], None
    found = []
    if size != (height, width):
        found.append(('image-size', images.size_differs(content, path, width, height)))
    elif (turn := images.exif_orientation(content)) > 1 and (turn < _TRANSPOSING or width == height):
        found.append(('image-exif-rotation', f'{path} {images.EXIF_IS_OBEYED.format(turn)}'))
    if images.is_dark(content, image):
        found.append(('image-dark', str(path)))
    return found, hashlib.blake2b(content, digest_size=16).hexdigest()


def format_audit(audit: Audit) -> str:
    """A table of the splits, the findings with their first examples, and a closing line."""
    rows = []
    for split in audit.splits:
        instances = ' + '.join(f'{count:,} {name}' for name, count in split['instances'].items())
        rows.append([split['place'], f'{split["images"]:,}', instances])
    lines = [tabulate(rows, ['split', 'images', 'instances'], 'plain', disable_numparse=True) if rows else '', '']
    for finding in audit.findings:
        lines.append(f'{finding.severity:7} {finding.count:>9,}  {finding.kind}  ({finding.place}): {finding.meaning}')
        shown = (textwrap.shorten(line, _LINE_CHARACTERS, placeholder='…') for line in finding.examples[:SHOWN])
        lines += [f'{"":20}{line}' for line in shown]
        if finding.count > SHOWN:
            lines.append(f'{"":20}… and {finding.count - SHOWN:,} more')
    counts = ', '.join(f'{audit.count(severity):,} {severity}s' for severity in SEVERITIES)
    return '\n'.join([*lines, f'{audit.root}: {counts}'])
