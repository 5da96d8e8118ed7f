"""Results as Markdown tables, readable on a terminal and in a README alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armbench_mmdet.evaluation.result_file import shown


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Lay out a Markdown table with aligned columns; the first ones are text, the others are numbers."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    align = [str.ljust] * text_columns + [str.rjust] * (len(header) - text_columns)

    def line(cells: Sequence[str]) -> str:
        return '| ' + ' | '.join(put(cell, width) for put, cell, width in zip(align, cells, widths, strict=True)) + ' |'

    rule = ['-' * width if i < text_columns else '-' * (width - 1) + ':' for i, width in enumerate(widths)]
    return '\n'.join([line(header), line(rule), *(line(row) for row in rows)])


def subset_table(results: Mapping[str, Mapping[str, Any]], trained_on: str) -> str:
    """One row a test set: mask AP over both classes, of tote and object apart, and box AP.

    Args:
        results: Results in the result file's shape, by the subset tested on.
        trained_on: The subset trained on.
    """
    header = [
        'trained on',
        'tested on',
        'segm mAP',
        'mAP_50',
        'mAP_75',
        'tote mAP',
        'object mAP',
        'object mAP_50',
        'bbox mAP',
    ]
    rows = []
    for subset, result in results.items():
        segm, bbox = result['segm'], result['bbox']
        tote, thing = segm['per_class']['tote'], segm['per_class']['object']
        scores = [segm['mAP'], segm['mAP_50'], segm['mAP_75'], tote['mAP'], thing['mAP'], thing['mAP_50'], bbox['mAP']]
        rows.append([trained_on, subset, *map(shown, scores)])
    return markdown_table(header, rows, text_columns=2)
