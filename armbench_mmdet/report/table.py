"""Tables as a report holds them, and as Markdown, readable on a terminal and in a README alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from armbench_mmdet.evaluation.result_file import shown

MAIN_SCORES = ('segm mAP', 'mAP_50', 'mAP_75', 'tote mAP', 'object mAP', 'object mAP_50', 'bbox mAP')


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell; ``is_best`` where it is the best of those it may be compared with."""

    text: str
    is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the page and for Markdown.

    Attributes:
        caption: What it shows.
        header: One name a column.
        rows: As many cells each.
        text_columns: How many columns at the left are text; the others are numbers.
        notes: Sentences below it.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Caption, table and notes as Markdown."""
        rows = [[f'**{cell.text}**' if cell.is_best else cell.text for cell in row] for row in self.rows]
        parts = [f'**{self.caption}**', markdown_table(self.header, rows, self.text_columns), *self.notes]
        return '\n\n'.join(parts)


def cells(*texts: str) -> list[Cell]:
    """Plain cells."""
    return [Cell(text) for text in texts]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Lay out a Markdown table with aligned columns; those at the left are text, the others are numbers."""
    rows = [[cell.replace('|', '\\|') for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    align = [*[str.ljust] * text_columns, *[str.rjust] * (len(header) - text_columns)]

    def line(texts: Sequence[str]) -> str:
        return '| ' + ' | '.join(put(text, width) for put, text, width in zip(align, texts, widths, strict=True)) + ' |'

    rule = [
        '-' * width if put is str.ljust else '-' * (width - 1) + ':' for put, width in zip(align, widths, strict=True)
    ]
    return '\n'.join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def subset_table(results: Mapping[str, Mapping[str, Any]], trained_on: str) -> str:
    """One row a test set: mask AP over both classes, of tote and object apart, and box AP.

    Args:
        results: Results in the result file's shape, by the subset tested on.
        trained_on: The subset trained on.
    """
    rows = [[trained_on, subset, *main_scores(result)] for subset, result in results.items()]
    return markdown_table(['trained on', 'tested on', *MAIN_SCORES], rows, text_columns=2)


def main_scores(result: Mapping[str, Any]) -> list[str]:
    """The numbers under :data:`MAIN_SCORES`, as they are shown."""
    segm, bbox = result['segm'] or {}, result['bbox'] or {}
    tote, thing = (segm.get('per_class', {}).get(name, {}) for name in ('tote', 'object'))
    scores = [segm.get(key) for key in ('mAP', 'mAP_50', 'mAP_75')]
    return [shown(one) for one in (*scores, tote.get('mAP'), thing.get('mAP'), thing.get('mAP_50'), bbox.get('mAP'))]
