from __future__ import annotations

from typing import Any

import msgspec

from armbench_mmdet.evaluation.result import SUMMARY_KEYS, Result, shown
from armbench_mmdet.report.tables import markdown_table, subset_table


def test_table_is_aligned() -> None:
    assert markdown_table(['a', 'number'], [['long name', '1']]).splitlines() == [
        '| a         | number |',
        '| --------- | -----: |',
        '| long name |      1 |',
    ]


def test_missing_number_is_a_dash() -> None:
    assert (shown(None), shown(0.12345)) == ('–', '0.123')


def test_subset_table_shows_tote_and_object_apart() -> None:
    def scores(ap: float | None, **more: Any) -> dict[str, Any]:
        return {**dict.fromkeys(SUMMARY_KEYS), 'mAP': ap, 'mAP_50': 0.75, 'mAP_75': 0.25, **more}

    parts: dict[str, Any] = {'per_size': {}, 'per_density': {}}
    segm = scores(0.5, **parts, per_class={'tote': scores(0.9, instances=1), 'object': scores(None, instances=2)})
    result = {'schema_version': 1, 'identity': {'subset': None, 'split': None}, 'classes': [], 'detections': 0}
    result |= {'segm': segm, 'bbox': scores(0.4, **parts, per_class={})}
    result |= {'images': {'ground_truth': 1, 'not_seen': 0, 'repeated': 0}}
    table = subset_table({'mix-object-tote': msgspec.convert(result, Result)}, 'mix')
    cells = [cell.strip() for cell in table.splitlines()[2].strip('|').split('|')]
    assert cells == ['mix', 'mix-object-tote', '0.500', '0.750', '0.250', '0.900', '–', '0.750', '0.400']
