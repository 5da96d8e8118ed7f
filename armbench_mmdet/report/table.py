"""Results as Markdown tables, readable on a terminal and in a README alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armbench_mmdet.evaluation.result_file import shown


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table with aligned columns; the first is text, the others are numbers."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    align = [str.ljust, *[str.rjust] * (len(header) - 1)]

    def line(cells: Sequence[str]) -> str:
        return '| ' + ' | '.join(put(cell, width) for put, cell, width in zip(align, cells, widths, strict=True)) + ' |'

    rule = ['-' * widths[0], *['-' * (width - 1) + ':' for width in widths[1:]]]
    return '\n'.join([line(header), line(rule), *(line(row) for row in rows)])


def subset_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a subset: mask AP over both classes, of tote and object apart, and box AP.

    Args:
        results: Results in the result file's shape, by subset.
    """
    header = ['tested on', 'segm mAP', 'mAP_50', 'mAP_75', 'tote mAP', 'object mAP', 'object mAP_50', 'bbox mAP']
    rows = []
    for subset, result in results.items():
        segm, bbox = result['segm'], result['bbox']
        tote, thing = segm['per_class']['tote'], segm['per_class']['object']
        scores = [segm['mAP'], segm['mAP_50'], segm['mAP_75'], tote['mAP'], thing['mAP'], thing['mAP_50'], bbox['mAP']]
        rows.append([subset, *map(shown, scores)])
    return markdown_table(header, rows)
