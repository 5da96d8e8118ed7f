"""A result as a table to read, classes apart: the tote alone would flatter the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armbench_mmdet.evaluation.result_file import shown

COLUMNS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR_1', 'AR_10', 'AR_100')


def result_table(result: Mapping[str, Any]) -> str:
    """One row for the mean and one for each class, under each IoU type."""
    rows: list[Sequence[str]] = [('', 'class', *COLUMNS, 'instances')]
    for iou_type in ('segm', 'boundary', 'bbox'):
        scores = result.get(iou_type)
        if scores is None:
            continue
        total = sum(one['instances'] for one in scores['per_class'].values())
        rows.append((iou_type, 'mean', *(shown(scores[column]) for column in COLUMNS), str(total)))
        for name, one in scores['per_class'].items():
            rows.append(('', name, *(shown(one[column]) for column in COLUMNS), str(one['instances'])))
    identity = result['identity']
    title = ' '.join(str(part) for part in (identity.get('subset'), identity.get('split')) if part)
    images = result['images']
    about = f'{images["ground_truth"]} images, {result["detections"]} detections'
    if images['not_seen']:
        about += f', {images["not_seen"]} images NOT predicted'
    return '\n'.join([f'{title}: {about}' if title else about, aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Cells padded to columns; the first two columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)
