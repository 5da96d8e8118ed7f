"""The audit of annotation files and images, and its report."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from armbench_mmdet.audit.checks import AnnotationAudit, ImageTask, check_images, repeated
from armbench_mmdet.audit.findings import ERROR, KINDS, NOTE, WARNING, Findings
from armbench_mmdet.audit.statistics import SplitStatistics, measure_split
from armbench_mmdet.datasets.index import open_index, read_sound_records
from armbench_mmdet.datasets.release import IMAGE_FOLDER, SPLITS, SUBSETS, require_existing
from armbench_mmdet.errors import InputError


@dataclass
class Audit:
    """The result: everything found, and statistics of each split that could be read."""

    root: Path
    findings: Findings = field(default_factory=Findings)
    statistics: list[SplitStatistics] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            'schema': 1,
            'root': str(self.root),
            'errors': self.findings.count('error'),
            'warnings': self.findings.count('warning'),
            'notes': self.findings.count('note'),
            'findings': [finding.to_dict() for finding in self.findings.sorted()],
            'statistics': [statistics.to_dict() for statistics in self.statistics],
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
    labels = AnnotationAudit(index, place, audit.findings).run()
    audit.statistics.append(measure_split(index, labels, place))
    sizes = zip(index.file_names(), index.widths.tolist(), index.heights.tolist(), strict=True)
    return [ImageTask(folder / IMAGE_FOLDER / name, width, height) for name, width, height in sizes]


def _compare_names(findings: Findings, subset: str, images: dict[str, list[ImageTask]], folder: Path) -> None:
    """Names in two splits of a subset, and image files in none."""
    listed = {p: {t.path.name for t in tasks} for p, tasks in images.items() if p.startswith(f'{subset}/')}
    pairs = sorted((name, place.split('/')[1]) for place, names in listed.items() for name in names)
    for name, splits in repeated(pairs).items():
        findings.add('same-name-in-splits', subset, [f'{name} in {", ".join(splits)}'])
    if listed and folder.is_dir():
        known = set().union(*listed.values())
        unused = sorted(entry.name for entry in os.scandir(folder) if entry.name not in known)
        findings.add('image-unused', subset, unused)


def _audit_images(findings: Findings, images: dict[str, list[ImageTask]], workers: int, show_progress: bool) -> None:
    """Check each file once, even if several splits list it."""
    listed: dict[ImageTask, list[str]] = {}
    for place, tasks in images.items():
        for task in dict.fromkeys(tasks):
            listed.setdefault(task, []).append(place)
    by_content: dict[str, dict[Path, list[str]]] = {}
    checks = check_images(list(listed), workers)
    for task, check in zip(
        listed, tqdm(checks, 'images', len(listed), unit='image', disable=not show_progress), strict=True
    ):
        for place in listed[task]:
            for kind, detail in check.found:
                findings.add(kind, place, [detail])
        if check.content:
            by_content.setdefault(check.content, {}).setdefault(task.path, []).extend(listed[task])
    for paths in by_content.values():
        _compare_contents(findings, paths)


def _compare_contents(findings: Findings, paths: dict[Path, list[str]]) -> None:
    """Findings for the files of one content: path to places that list it."""
    members = [(place, path) for path, places in paths.items() for place in places]
    places = list(dict.fromkeys(place for place, _ in members))
    if len(places) > 1:
        line = ', '.join(f'{path.name} in {place}' for place, path in members)
        findings.add('same-content-in-splits', ' + '.join(places), [line])
    for place in places:
        names = sorted({path.name for member_place, path in members if member_place == place})
        if len(names) > 1:
            findings.add('image-copied', place, [', '.join(names)])


_LINE_CHARACTERS = 200


def format_audit(audit: Audit) -> str:
    """The statistics table, the findings with their first examples, and a closing line."""
    lines = [*_statistics(audit.statistics), '']
    for finding in audit.findings.sorted():
        lines.append(
            f'{finding.severity:7} {finding.count:>9,}  {finding.kind}  ({finding.place}): {KINDS[finding.kind][1]}'
        )
        lines += [f'{"":20}{_shortened(example)}' for example in finding.examples]
        if finding.count > len(finding.examples):
            lines.append(f'{"":20}… and {finding.count - len(finding.examples):,} more')
    counts = ', '.join(f'{audit.findings.count(severity):,} {severity}s' for severity in (ERROR, WARNING, NOTE))
    lines.append(f'{audit.root}: {counts}')
    return '\n'.join(lines)


def _statistics(statistics: list[SplitStatistics]) -> list[str]:
    if not statistics:
        return []
    lines = [
        f'{"split":34} {"images":>7} {"instances":>20} {"per image":>13} {"mask side, px":>15} {"of image side":>15}',
        f'{"":34} {"":>7} {"":>20} {"median (max)":>13} {"median (5–95 %)":>15} {"median (5–95 %)":>15}',
    ]
    for split in statistics:
        sides_px = np.concatenate(list(split.sides_px.values()))
        sides_frac = np.concatenate(list(split.sides_frac.values()))
        instances = ' + '.join(f'{number:,} {name}' for name, number in split.instances.items())
        if len(sides_px) == 0:
            lines.append(f'{split.place:34} {split.images:>7,} {"none":>20}')
            continue
        per_image = f'{np.median(split.per_image):.0f} ({split.per_image.max()})'
        low, middle, high = np.percentile(sides_px, (5, 50, 95))
        low_frac, middle_frac, high_frac = np.percentile(sides_frac, (5, 50, 95))
        lines.append(
            f'{split.place:34} {split.images:>7,} {instances:>20} {per_image:>13} '
            f'{f"{middle:.0f} ({low:.0f}–{high:.0f})":>15} {f"{middle_frac:.2f} ({low_frac:.2f}–{high_frac:.2f})":>15}'
        )
    return lines


def _shortened(line: str) -> str:
    return line if len(line) <= _LINE_CHARACTERS else line[: _LINE_CHARACTERS - 1] + '…'
