"""An audit as text for a terminal."""

from __future__ import annotations

import numpy as np

from armbench_mmdet.datasets.audit import Audit
from armbench_mmdet.datasets.audit_findings import ERROR, KINDS, NOTE, WARNING
from armbench_mmdet.datasets.audit_statistics import SplitStatistics

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
