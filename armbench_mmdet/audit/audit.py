"""The audit of annotation files and images, and its report."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.audit.checks import ImageTask, check_annotations, check_images
from armbench_mmdet.audit.findings import ERROR, NOTE, WARNING, Findings
from armbench_mmdet.audit.statistics import measure_split
from armbench_mmdet.datasets.index import open_index, read_sound_records
from armbench_mmdet.datasets.release import IMAGE_FOLDER, SPLITS, SUBSETS, require_existing
from armbench_mmdet.errors import InputError


@dataclass
class Audit:
    """The result: everything found, and statistics of each split that could be read."""

    root: Path
    findings: Findings = field(default_factory=Findings)
    statistics: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'schema': 1,
            'root': str(self.root),
            'errors': self.findings.count('error'),
            'warnings': self.findings.count('warning'),
            'notes': self.findings.count('note'),
            'findings': [finding.to_dict() for finding in self.findings.sorted()],
            'statistics': self.statistics,
        }


def audit_data_set(
    root: Path,
    subsets: tuple[str, ...] = SUBSETS,
    workers: int | None = None,
    show_progress: bool = False,
    cache_dir: Path | str | None = None,
) -> Audit:
    """Check all splits of a data set folder; nothing stops it before it has seen everything.

    Args:
        root: The folder of the subsets.
        subsets: Which of them.
        workers: Processes that decode images; one a core by default.
        show_progress: Show a progress bar on standard error.
        cache_dir: See :func:`~armbench_mmdet.datasets.index.open_index`.

    Returns:
        All findings and the statistics.

    Raises:
        InputError: The folder is missing, or has none of the subsets.
    """
    require_existing(root, 'data folder')
    audit = Audit(root)
    if not any((root / subset).is_dir() for subset in subsets):
        raise InputError(f'DATA_ROOT must have at least one of the folders {", ".join(subsets)}, got none (in {root})')
    for subset in subsets:
        if not (root / subset).is_dir():
            audit.findings.add('subset-missing', subset, [str(root / subset)])
    places = [(subset, split) for subset in subsets if (root / subset).is_dir() for split in SPLITS]
    images: dict[str, list[ImageTask]] = {}
    for subset, split in tqdm(places, 'annotations', unit='file', disable=not show_progress):
        images[f'{subset}/{split}'] = _audit_file(audit, root / subset, split, cache_dir)
    for subset in subsets:
        _compare_names(audit.findings, subset, images, root / subset / IMAGE_FOLDER)
    _audit_images(audit.findings, images, workers or os.cpu_count() or 1, show_progress)
    return audit


def _audit_file(audit: Audit, folder: Path, split: str, cache_dir: Path | str | None) -> list[ImageTask]:
    place, ann_file = f'{folder.name}/{split}', folder / f'{split}.json'
    if not ann_file.is_file():
        is_needed = folder.name == SUBSETS[0] or split == SPLITS[-1]
        audit.findings.add('split-missing' if is_needed else 'split-absent', place, [str(ann_file)])
        return []
    try:
        index = open_index(ann_file, cache_dir)
    except InputError:
        index, problems = read_sound_records(ann_file)
        for problem in problems:
            audit.findings.add(problem.kind, place, [problem.detail])
    if index.num_images == 0:
        audit.findings.add('no-annotations', place, [str(ann_file)])
        return []
    labels = check_annotations(index, place, audit.findings)
    audit.statistics.append(measure_split(index, labels, place))
    sizes = zip(index.file_names(), index.widths.tolist(), index.heights.tolist(), strict=True)
    return [ImageTask(folder / IMAGE_FOLDER / name, width, height) for name, width, height in sizes]


def _compare_names(findings: Findings, subset: str, images: dict[str, list[ImageTask]], folder: Path) -> None:
    """Names in two splits of a subset, and image files in none."""
    splits: dict[str, list[str]] = {}
    for place, tasks in images.items():
        if place.startswith(f'{subset}/'):
            for name in {task.path.name for task in tasks}:
                splits.setdefault(name, []).append(place.split('/')[1])
    twice = sorted(name for name, found in splits.items() if len(found) > 1)
    findings.add('same-name-in-splits', subset, [f'{name} in {", ".join(splits[name])}' for name in twice])
    if folder.is_dir():
        findings.add('image-unused', subset, sorted({entry.name for entry in os.scandir(folder)} - splits.keys()))


def _audit_images(findings: Findings, images: dict[str, list[ImageTask]], workers: int, show_progress: bool) -> None:
    """Check each file once, even if several splits list it."""
    listed: dict[ImageTask, list[str]] = {}
    for place, tasks in images.items():
        for task in dict.fromkeys(tasks):
            listed.setdefault(task, []).append(place)
    by_content: dict[str, dict[Path, list[str]]] = {}
    checks = tqdm(check_images(list(listed), workers), 'images', len(listed), unit='image', disable=not show_progress)
    for (task, places), (found, content) in zip(listed.items(), checks, strict=True):
        for place in places:
            for kind, detail in found:
                findings.add(kind, place, [detail])
        if content:
            by_content.setdefault(content, {}).setdefault(task.path, []).extend(places)
    for paths in by_content.values():
        _compare_contents(findings, paths)


def _compare_contents(findings: Findings, paths: dict[Path, list[str]]) -> None:
    """Findings for the files of one content: path to places that list it."""
    members = [(place, path.name) for path, places in paths.items() for place in places]
    places = list(dict.fromkeys(place for place, _ in members))
    if len(places) > 1:
        line = ', '.join(f'{name} in {place}' for place, name in members)
        findings.add('same-content-in-splits', ' + '.join(places), [line])
    for place in places:
        names = sorted({name for member_place, name in members if member_place == place})
        if len(names) > 1:
            findings.add('image-copied', place, [', '.join(names)])


_LINE_CHARACTERS = 500
_STATISTICS = ('split', 'images', 'instances', 'per image:\nmedian (max)', 'mask side, px:\nmedian (5–95 %)',
               'of image side:\nmedian (5–95 %)')  # fmt: skip


def format_audit(audit: Audit) -> str:
    """The statistics table, the findings with their first examples, and a closing line."""
    rows = [_statistics_row(statistics) for statistics in audit.statistics]
    align = ('left', *('right' for _ in _STATISTICS[1:]))
    lines = [tabulate(rows, _STATISTICS, 'plain', colalign=align, disable_numparse=True) if rows else '', '']
    for finding in audit.findings.sorted():
        lines.append(f'{finding.severity:7} {finding.count:>9,}  {finding.kind}  ({finding.place}): {finding.meaning}')
        lines += [
            f'{"":20}{textwrap.shorten(example, _LINE_CHARACTERS, placeholder="…")}' for example in finding.examples
        ]
        if finding.count > len(finding.examples):
            lines.append(f'{"":20}… and {finding.count - len(finding.examples):,} more')
    counts = ', '.join(f'{audit.findings.count(severity):,} {severity}s' for severity in (ERROR, WARNING, NOTE))
    return '\n'.join([*lines, f'{audit.root}: {counts}'])


def _statistics_row(split: dict[str, Any]) -> list[str]:
    each, sides = split['instances_per_image'], split['classes']['all']
    px, frac = sides['mask_side_px'], sides['mask_side_frac']
    if px is None:
        return [split['place'], f'{split["images"]:,}', 'none', '', '', '']
    return [
        split['place'],
        f'{split["images"]:,}',
        ' + '.join(f'{number:,} {name}' for name, number in split['instances'].items()),
        f'{each["p50"]:.0f} ({each["p100"]:.0f})',
        f'{px["p50"]:.0f} ({px["p5"]:.0f}–{px["p95"]:.0f})',
        f'{frac["p50"]:.2f} ({frac["p5"]:.2f}–{frac["p95"]:.2f})',
    ]
