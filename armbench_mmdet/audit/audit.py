"""The audit of annotation files and images, and its report."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.audit.checks import SEVERITIES, SHOWN, Findings, ImageTask, check_annotations, check_images
from armbench_mmdet.datasets.images import SUFFIXES, folder_of_images
from armbench_mmdet.datasets.index import open_index, read_sound_records
from armbench_mmdet.datasets.release import CLASSES, IMAGE_FOLDER, SPLITS, SUBSETS, CategoryMap, require_existing
from armbench_mmdet.errors import InputError

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
    counts = (
        {name: int((used & (labels == label)).sum()) for label, name in enumerate(CLASSES)}
        if labels is not None
        else {}
    )
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
    by_content: dict[str, list[tuple[str, str]]] = {}
    checks = tqdm(check_images(list(listed), workers), 'images', len(listed), unit='image')
    for (task, places), (found, content) in zip(listed.items(), checks, strict=True):
        for place in places:
            for kind, detail in found:
                findings.add(kind, place, [detail])
        if content:
            by_content.setdefault(content, []).extend((place, task.path.name) for place in places)
    for members in by_content.values():
        names: dict[str, set[str]] = {}
        for place, name in members:
            names.setdefault(place, set()).add(name)
        if len(names) > 1:
            line = ', '.join(f'{name} in {place}' for place, name in members)
            findings.add('same-content-in-splits', ' + '.join(names), [line])
        for place, copies in names.items():
            if len(copies) > 1:
                findings.add('image-copied', place, [', '.join(sorted(copies))])


_LINE_CHARACTERS = 500


def format_audit(audit: Audit) -> str:
    """A table of the splits, the findings with their first examples, and a closing line."""
    rows = [
        [split['place'], f'{split["images"]:,}', ' + '.join(f'{count:,} {name}' for name, count in instances.items())]
        for split in audit.splits
        for instances in [split['instances']]
    ]
    lines = [tabulate(rows, ['split', 'images', 'instances'], 'plain', disable_numparse=True) if rows else '', '']
    for finding in audit.findings.sorted():
        lines.append(f'{finding.severity:7} {finding.count:>9,}  {finding.kind}  ({finding.place}): {finding.meaning}')
        shown = (textwrap.shorten(line, _LINE_CHARACTERS, placeholder='…') for line in finding.examples[:SHOWN])
        lines += [f'{"":20}{line}' for line in shown]
        if finding.count > SHOWN:
            lines.append(f'{"":20}… and {finding.count - SHOWN:,} more')
    counts = ', '.join(f'{audit.findings.count(severity):,} {severity}s' for severity in SEVERITIES)
    return '\n'.join([*lines, f'{audit.root}: {counts}'])
