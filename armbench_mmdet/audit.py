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

from armbench_mmdet.datasets import coco
from armbench_mmdet.datasets.armbench import KEPT_IN_PART, select_annotations
from armbench_mmdet.datasets.images import (
    EXIF_IS_OBEYED,
    SUFFIXES,
    decode_image,
    exif_orientation,
    folder_of_images,
    image_size,
    is_dark,
    read_bytes,
    size_differs,
)
from armbench_mmdet.datasets.index import ColumnIndex, open_index, read_sound_records
from armbench_mmdet.datasets.release import (
    CLASSES,
    IMAGE_FOLDER,
    SPLITS,
    SUBSETS,
    CategoryMap,
    assign_categories,
    require_existing,
)
from armbench_mmdet.errors import InputError, UnreadableImageError

SEVERITIES = ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SHOWN = 5
"""Examples shown of each kind in each place."""

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


@dataclass
class Finding:
    """One kind of thing found in one place, ``subset/split``."""

    kind: str
    place: str
    severity: str
    meaning: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """All findings of an audit."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, kind: str, place: str, examples: Iterable[str], count: int | None = None) -> None:
        """Count things found, by a line for each; ``count`` says how many there are if ``examples`` are only some."""
        lines = list(examples)
        number = len(lines) if count is None else count
        if number:
            finding = self._found.setdefault((kind, place), Finding(kind, place, *KINDS[kind]))
            finding.count += number
            finding.examples += lines

    def has(self, kind: str, place: str) -> bool:
        """Whether something of a kind was found in a place."""
        return (kind, place) in self._found

    def sorted(self) -> list[Finding]:
        """Errors first, then warnings, then notes; each in the order of :data:`KINDS`."""
        kinds = list(KINDS)
        return sorted(self._found.values(), key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.kind), f.place))

    def count(self, severity: str) -> int:
        """Number of things found of a severity."""
        return sum(f.count for f in self._found.values() if f.severity == severity)

    def exit_status(self, strict: bool) -> int:
        """2 with errors, 1 with warnings if ``strict``, else 0."""
        return 2 if self.count(ERROR) else int(strict and self.count(WARNING) > 0)


_EDGE_PX, _ROUNDING_PX = 1.0, 0.01
_BOX_PX, _BOX_FRAC = 2.0, 0.02
_AREA_PX2, _AREA_FRAC = 16.0, 0.05
_LIMIT = 100
_TOLD_BY = {'area-disagrees': coco.AREAS, 'area-missing': coco.NO_AREAS, 'box-disagrees': coco.BOXES}
"""Kinds that are not listed one by one where a pattern of the whole file says them."""


Found = tuple[str, NDArray[np.bool_], str, NDArray[np.float64] | None]
"""A kind, which of the annotations are of it, and a number of each with the words around it."""


def check_annotations(
    index: ColumnIndex, place: str, findings: Findings, category_map: CategoryMap | None = None
) -> NDArray[np.int64] | None:
    """Check one annotation file; returns ``(A,) int64`` labels, or None when the categories are not ours."""
    labels = None
    try:
        assignment = assign_categories(index, category_map)
    except InputError as error:
        findings.add('category-unknown', place, [str(error)])
    else:
        labels = assignment.rows
        findings.add('category-assumed', place, assignment.notes)
        absent = [name for label, name in enumerate(CLASSES) if label not in assignment.labels.values()]
        findings.add('class-absent', place, absent)
    for note in index.notes:
        findings.add(note.kind, place, [note.detail])
    without = np.flatnonzero(np.diff(index.annotation_starts) == 0).tolist()
    findings.add('image-without-annotation', place, map(index.file_name, without[:SHOWN]), len(without))
    known = np.zeros(index.num_annotations, np.int64) if labels is None else labels
    kept, left_out = select_annotations(index, known)
    used = kept & ~index.crowds
    if not used.any():
        findings.add('no-annotations', place, [f'{index.crowds.sum()} of {len(used)} are crowd regions'])
    for label, name in enumerate(CLASSES if labels is not None else ()):
        number, crowds = (int(rows.sum()) for rows in (known == label, (known == label) & index.crowds))
        if number and not used[known == label].any():
            findings.add('class-unusable', place, [f'{name}: {number} annotations, {crowds} of them crowd regions'])
    crowded = np.bincount(index.image_rows[used] * 2 + known[used], minlength=2 * index.num_images) > _LIMIT
    rows = np.unique(np.flatnonzero(crowded) // 2).tolist()
    findings.add('image-crowded', place, map(index.file_name, rows[:SHOWN]), len(rows))
    excluded = [
        (LEFT_OUT_KINDS[reason], rows, '', None) for reason, rows in left_out.items() if reason in LEFT_OUT_KINDS
    ]
    for kind, found, words, values in [*excluded, *_check_masks_and_boxes(index), *_check_areas(index)]:
        if findings.has(_TOLD_BY.get(kind, ''), place):
            continue
        rows = np.flatnonzero(found)
        examples = [
            f'annotation {index.annotation_ids[row]} of {index.file_name(int(index.image_rows[row]))}'
            + ('' if values is None else words.format(values[row]))
            for row in rows[:SHOWN]
        ]
        findings.add(kind, place, examples, len(rows))
    return labels


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
    measured_px2 = np.full(index.num_annotations, np.nan)
    for row in np.flatnonzero(np.diff(index.ring_ranges)[:, 0]).tolist():
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


_CHUNK = 16
_JPEG, _REDUCTION = b'\xff\xd8', 8
_TRANSPOSING = 5


class ImageTask(NamedTuple):
    """An image file and the size in px that the annotation file gives."""

    path: Path
    width: int
    height: int


ImageCheck = tuple[list[tuple[str, str]], str | None]
"""What was found about an image file, kinds with details; and a digest of its content if it could be read."""


def check_images(tasks: list[ImageTask], workers: int) -> Iterator[ImageCheck]:
    """Check image files in ``workers`` processes, results in the order of the tasks."""
    if workers <= 1 or len(tasks) <= _CHUNK:
        yield from map(check_image, tasks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(check_image, tasks, chunksize=_CHUNK)


def check_image(task: ImageTask) -> ImageCheck:
    """Decode one image file as training does, a JPEG at an eighth of its size, and compare it with its task."""
    path, width, height = task
    try:
        content = read_bytes(path)
        image = decode_image(content, path, _REDUCTION if content.startswith(_JPEG) else 1)
        size = image_size(content, path)
    except UnreadableImageError as error:
        return [('image-unreadable' if path.exists() else 'image-missing', str(error))], None
    found = []
    if size != (height, width):
        found.append(('image-size', size_differs(content, path, width, height)))
    elif (orientation := exif_orientation(content)) > 1 and (orientation < _TRANSPOSING or width == height):
        found.append(('image-exif-rotation', f'{path} {EXIF_IS_OBEYED.format(orientation)}'))
    if is_dark(content, image):
        found.append(('image-dark', str(path)))
    return found, hashlib.blake2b(content, digest_size=16).hexdigest()


_ROBOFLOW = '_annotations.coco.json'


@dataclass
class Audit:
    """The result: everything found, and images and instances of each split that could be read."""

    root: Path
    findings: Findings = field(default_factory=Findings)
    splits: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'schema': 2,
            'root': str(self.root),
            **{f'{severity}s': self.findings.count(severity) for severity in SEVERITIES},
            'findings': [vars(finding) for finding in self.findings.sorted()],
            'splits': self.splits,
        }


class AnnotationFile(NamedTuple):
    """An annotation file, its name in the findings, and the folder of its images."""

    place: str
    path: Path
    images: Path


def audit_data_set(root: Path, subsets: tuple[str, ...] = SUBSETS, **options: Any) -> Audit:
    """Check all splits of a data set folder, ARMBench's or Roboflow's; nothing stops it before it has seen everything.

    Raises:
        InputError: The folder is missing, or has neither ARMBench's folders nor any with ``_annotations.coco.json``.
    """
    require_existing(root, 'data folder')
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
        if not (root / subset).is_dir():
            audit.findings.add('subset-missing', subset, [str(root / subset)])
            continue
        for split in SPLITS:
            file = AnnotationFile(f'{subset}/{split}', root / subset / f'{split}.json', root / subset / IMAGE_FOLDER)
            if file.path.is_file():
                files.append(file)
            else:
                is_needed = subset == SUBSETS[0] or split == SPLITS[-1]
                audit.findings.add('split-missing' if is_needed else 'split-absent', file.place, [str(file.path)])
    return audit_files(audit, files, **options)


def audit_own_files(paths: Sequence[Path], images: Path | None = None, **options: Any) -> Audit:
    """Check COCO files of any layout, with their images in a folder, else in ``images`` beside each, or beside it.

    Raises:
        InputError: A file or the folder is missing.
    """
    missing = [path for path in paths if not path.is_file()] + ([images] if images and not images.is_dir() else [])
    if missing:
        raise InputError(f'--ann-file and --images must be existing files and a folder, got {str(missing[0])!r}')
    files = [AnnotationFile(str(path), path, images or folder_of_images(path)) for path in paths]
    root = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    return audit_files(Audit(root), files, **options)


def audit_files(
    audit: Audit, files: list[AnnotationFile], category_map: CategoryMap | None = None, workers: int | None = None
) -> Audit:
    """Check annotation files and their images, and add what is found to an audit, which is returned.

    Images are decoded by so many processes, one a core by default.
    """
    images: dict[str, list[ImageTask]] = {}
    for file in tqdm(files, 'annotations', unit='file'):
        images[file.place] = _audit_file(audit, file, category_map)
    _compare_paths(audit.findings, images, {file.images for file in files})
    _audit_images(audit.findings, images, workers or os.cpu_count() or 1)
    return audit


def _audit_file(audit: Audit, file: AnnotationFile, category_map: CategoryMap | None) -> list[ImageTask]:
    try:
        index = open_index(file.path)
    except InputError:
        index, problems = read_sound_records(file.path)
        for problem in problems:
            audit.findings.add(problem.kind, file.place, [problem.detail])
    if index.num_images == 0:
        audit.findings.add('no-annotations', file.place, [str(file.path)])
        return []
    labels = check_annotations(index, file.place, audit.findings, category_map)
    used = index.usable_masks & ~index.crowds
    counts = {}
    if labels is not None:
        counts = {name: int((used & (labels == label)).sum()) for label, name in enumerate(CLASSES)}
    audit.splits.append({'place': file.place, 'images': index.num_images, 'instances': counts})
    sizes = zip(index.file_names(), index.widths.tolist(), index.heights.tolist(), strict=True)
    return [ImageTask(Path(os.path.normpath(file.images / name)), width, height) for name, width, height in sizes]


def _compare_paths(findings: Findings, images: dict[str, list[ImageTask]], folders: set[Path]) -> None:
    """Image files in two splits, and in none."""
    places: dict[Path, list[str]] = {}
    for place, tasks in images.items():
        for path in dict.fromkeys(task.path for task in tasks):
            places.setdefault(path, []).append(place)
    for path, found in sorted(places.items()):
        if len(found) > 1:
            findings.add('same-name-in-splits', ' + '.join(found), [str(path)])
    for folder in sorted(folders):
        files = (Path(os.path.normpath(path)) for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
        unused = sorted(path.relative_to(os.path.normpath(folder)).as_posix() for path in {*files} - places.keys())
        findings.add('image-unused', str(folder), unused)


def _audit_images(findings: Findings, images: dict[str, list[ImageTask]], workers: int) -> None:
    """Check each file once, even if several splits list it."""
    listed: dict[ImageTask, list[str]] = {}
    for place, tasks in images.items():
        for task in dict.fromkeys(tasks):
            listed.setdefault(task, []).append(place)
    by_content: dict[str, dict[str, set[str]]] = {}  # to the names of each place
    checks = tqdm(check_images(list(listed), workers), 'images', len(listed), unit='image')
    for (task, places), (found, content) in zip(listed.items(), checks, strict=True):
        for place in places:
            for kind, detail in found:
                findings.add(kind, place, [detail])
            if content:
                by_content.setdefault(content, {}).setdefault(place, set()).add(task.path.name)
    for names in by_content.values():
        if len(names) > 1:
            line = ', '.join(f'{name} in {place}' for place, copies in names.items() for name in sorted(copies))
            findings.add('same-content-in-splits', ' + '.join(names), [line])
        for place, copies in names.items():
            if len(copies) > 1:
                findings.add('image-copied', place, [', '.join(sorted(copies))])


_LINE_CHARACTERS = 500


def format_audit(audit: Audit) -> str:
    """A table of the splits, the findings with their first examples, and a closing line."""
    rows = []
    for split in audit.splits:
        instances = ' + '.join(f'{count:,} {name}' for name, count in split['instances'].items())
        rows.append([split['place'], f'{split["images"]:,}', instances])
    lines = [tabulate(rows, ['split', 'images', 'instances'], 'plain', disable_numparse=True) if rows else '', '']
    for finding in audit.findings.sorted():
        lines.append(f'{finding.severity:7} {finding.count:>9,}  {finding.kind}  ({finding.place}): {finding.meaning}')
        shown = (textwrap.shorten(line, _LINE_CHARACTERS, placeholder='…') for line in finding.examples[:SHOWN])
        lines += [f'{"":20}{line}' for line in shown]
        if finding.count > SHOWN:
            lines.append(f'{"":20}… and {finding.count - SHOWN:,} more')
    counts = ', '.join(f'{audit.findings.count(severity):,} {severity}s' for severity in SEVERITIES)
    return '\n'.join([*lines, f'{audit.root}: {counts}'])
