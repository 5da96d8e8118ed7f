"""Every known fault lowers or falsifies the score of perfect predictions, and is stopped here."""

from __future__ import annotations

from pathlib import Path

import pytest

from armbench_mmdet.autopsy import FAULTS, Fault, PerfectPredictions, examine, findings_table
from armbench_mmdet.autopsy.faults import evaluate_here, refusal
from armbench_mmdet.autopsy.perfect import stock_scores
from armbench_mmdet.errors import InputError


@pytest.fixture(scope='module')
def perfect(minibench_root: Path) -> PerfectPredictions:
    return PerfectPredictions.of_minibench(minibench_root)


EXPECTED = {  # what stock evaluation gives with the fault, and what the checks here say
    'labels shifted by −1': ((0.0, 0.2), ['labels must be from 0 to 1, got -1', 'lost at labels']),
    'rectangles instead of masks': ((0.2, 0.95), ['pred_instances must have masks']),
    'masks flattened into one id map': ((0.3, 0.95), ['lost at masks']),
    'masks left at network size': ((0.0, 0.0), ['mask size must be that of the image']),
    'a `bbox` left beside the mask': (None, ["a segm detection must not carry 'bbox'"]),
    '1000 detections an image': (None, [r'max_dets must be \(1, 10, 100\)']),
    "COCO's 80-class head": ((0.0, 0.0), [r'`num_classes` \(80\)', 'labels must be from 0 to 1, got 28 to 39']),
    'annotation ids from 0': ((0.7, 0.999), ['score 1.0 where ids start at 0']),
}


def test_every_fault_has_a_test() -> None:
    assert [fault.name for fault in FAULTS] == list(EXPECTED)


def test_perfect_predictions_score_one_in_both_evaluations(perfect: PerfectPredictions) -> None:
    assert stock_scores(perfect.truth, perfect.stock_detections(perfect.samples()))['mAP'] == 1
    assert evaluate_here(perfect, perfect.samples())['coco/segm_mAP'] == 1


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.name)
def test_fault_changes_the_stock_score(perfect: PerfectPredictions, fault: Fault) -> None:
    bounds, _ = EXPECTED[fault.name]
    with_it, without = (scores[fault.score] for scores in fault.measure(perfect))
    if bounds is None:  # flattering faults: the score with the fault is the better one
        assert with_it > without + 0.005
    else:
        assert without == 1
        assert bounds[0] <= with_it <= bounds[1]


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.name)
def test_fault_is_stopped_here(perfect: PerfectPredictions, fault: Fault) -> None:
    _, patterns = EXPECTED[fault.name]
    said = fault.stop(perfect)
    assert len(said) == len(patterns)
    for message, pattern in zip(said, patterns, strict=True):
        with pytest.raises(InputError, match=pattern):
            raise InputError(message)


def test_a_check_that_lets_its_fault_through_ends_the_autopsy(
    perfect: PerfectPredictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('armbench_mmdet.evaluation.predictions.check_mask_sizes', lambda *_: None)
    monkeypatch.setattr('armbench_mmdet.evaluation.metric.check_mask_sizes', lambda *_: None)
    (fault,) = (fault for fault in FAULTS if fault.name == 'masks left at network size')
    with pytest.raises(RuntimeError, match='the fault went through'):
        list(examine(perfect, [fault]))
    with pytest.raises(RuntimeError, match='the fault went through'):
        refusal(lambda: None)


def test_the_table_has_a_row_for_every_fault(perfect: PerfectPredictions) -> None:
    lines = findings_table(examine(perfect, FAULTS[:2])).splitlines()
    assert len(lines) == 4
    assert {line.count('|') for line in lines} == {5}
    assert FAULTS[0].name in lines[2]
    assert FAULTS[1].check in lines[3]
