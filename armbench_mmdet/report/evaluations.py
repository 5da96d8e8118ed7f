"""Result files and the match tables beside them, as a report reads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.datasets.locations import SPLITS, SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import MatchTable
from armbench_mmdet.evaluation.protocol import IOU_TYPES
from armbench_mmdet.evaluation.result_file import matches_path, read_result
from armbench_mmdet.report.curves import precision_at_recall

SAME_MAP = 1e-6


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A result file and the match tables beside it, by IoU type."""

    path: Path
    result: dict[str, Any]
    tables: dict[str, MatchTable]

    @property
    def subset(self) -> str:
        """The subset it was evaluated on."""
        return self.result['identity']['subset']

    @property
    def split(self) -> str:
        """The split it was evaluated on."""
        return str(self.result['identity']['split'])

    @property
    def fingerprint(self) -> str | None:
        """The digest of the annotation file."""
        return self.result['identity']['data_fingerprint']


def read_evaluations(folder: Path) -> tuple[tuple[Evaluation, ...], list[str]]:
    """Read every result file of a folder.

    Returns:
        Those that can be shown, in the order of the subsets; and what is wrong, a line each.
    """
    evaluations, problems = [], []
    coco_results = tuple(f'.{iou_type}.json' for iou_type in IOU_TYPES)
    for path in sorted(path for path in folder.glob('*.json') if not path.name.endswith(coco_results)):
        try:
            evaluation, found = _read_evaluation(path)
        except InputError as error:
            problems.append(f'{error}; left out')
            continue
        problems += found
        evaluations.append(evaluation)
    evaluations.sort(key=lambda evaluation: SUBSETS.index(evaluation.subset))
    return tuple(evaluations), problems


def _read_evaluation(path: Path) -> tuple[Evaluation, list[str]]:
    result = read_result(path)
    for key, choices in (('subset', SUBSETS), ('split', SPLITS)):
        if result['identity'][key] not in choices:
            raise InputError(
                f'{key} must be one of {", ".join(choices)}, got {result["identity"][key]!r}: '
                f'a result on another data set (in {path})'
            )
    if path.stem != f'{result["identity"]["subset"]}_{result["identity"]["split"]}':
        got = f'{result["identity"]["subset"]} {result["identity"]["split"]}'
        raise InputError(f'result file must be named after its subset and split, got {got} (in {path})')
    if result['classes'] != list(CLASSES):
        raise InputError(f'classes must be {list(CLASSES)}, got {result["classes"]}: another data set (in {path})')
    tables, problems = {}, []
    for iou_type in IOU_TYPES:
        if result[iou_type] is None:
            continue
        try:
            tables[iou_type] = _table_of(result, path, iou_type)
        except InputError as error:
            problems.append(f'{error}; no curves and differences from it')
    if result['images']['not_seen']:
        images = result['images']
        problems.append(f'{images["not_seen"]} of {images["ground_truth"]} images were not predicted (in {path})')
    return Evaluation(path, result, tables), problems


def _table_of(result: dict[str, Any], path: Path, iou_type: str) -> MatchTable:
    """The match table beside a result.

    Raises:
        InputError: There is none, or it stands for another result than the one in the file.
    """
    table_path = matches_path(path, iou_type)
    table = MatchTable.load(table_path)
    if list(table.classes) != result['classes']:
        raise InputError(
            f'match table must have the classes {result["classes"]}, got {list(table.classes)} (in {table_path})'
        )
    for name, matches in table.classes.items():
        found, expected = precision_at_recall(matches).mean(), result[iou_type]['per_class'][name]['mAP']
        if not np.isclose(found, np.nan if expected is None else expected, atol=SAME_MAP, equal_nan=True):
            raise InputError(
                f'match table must belong to its result, got an mAP of {found:.4f} where the result has {expected} '
                f'for {name} (in {table_path}); evaluate again with tools/test.py'
            )
    return table
