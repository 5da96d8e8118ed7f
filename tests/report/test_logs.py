"""Curves from mmengine's logs: several attempts, schedules by epoch, damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_runs import log_rows, write_log

from armbench_mmdet.report.collect import read_log


def test_a_log_has_every_component_in_training_and_validation(tmp_path: Path) -> None:
    write_log(tmp_path, log_rows())
    log, problems = read_log(tmp_path)
    assert problems == []
    assert log.losses() == ['loss', 'loss_bbox', 'loss_cls', 'loss_mask', 'd0.loss_mask']
    for name in log.losses():
        assert len(log.curve(name).steps) == 30
        assert log.curve(f'val_loss/{name}').steps == [200, 400, 600]
    assert log.curve('coco/segm_mAP').steps == [200, 400, 600]
    assert log.last_step == 600


def row(step: int, loss: float, **more: float) -> dict:
    return {'loss': loss, 'step': step, **more}


RESUMED = [row(40, 9), {'coco/segm_mAP': 0.9, 'step': 40}, row(60, 9)]
AFRESH = [row(20, 5), {'coco/segm_mAP': 0.5, 'step': 40}, row(40, 5)]


@pytest.mark.parametrize(
    ('later', 'losses', 'scores'),
    [(RESUMED, {20: 1, 40: 9, 60: 9}, {40: 0.9}), (AFRESH, {20: 5, 40: 5}, {40: 0.5})],
    ids=['resumed from 20', 'started afresh'],
)
def test_a_later_attempt_counts_from_its_first_step_on(
    tmp_path: Path, later: list[dict], losses: dict, scores: dict
) -> None:
    earlier = [row(20, 1), row(40, 1), {'coco/segm_mAP': 0.1, 'step': 40}, row(60, 1), row(80, 1)]
    write_log(tmp_path, earlier, '20261124_010000')
    write_log(tmp_path, later, '20261124_020000')
    log, _ = read_log(tmp_path)
    assert dict(zip(log.curve('loss').steps, log.curve('loss').values, strict=True)) == losses
    found = log.curve('coco/segm_mAP')
    assert dict(zip(found.steps, found.values, strict=True)) == scores


def test_epochs_become_iterations(tmp_path: Path) -> None:
    train = [row(step, 1, epoch=1 + (step > 100)) for step in (50, 100, 150, 200)]
    validated = [{'coco/segm_mAP': 0.1, 'step': 1}, {'coco/segm_mAP': 0.2, 'step': 2}]
    write_log(tmp_path, [*train[:2], validated[0], *train[2:], validated[1]])
    assert read_log(tmp_path)[0].curve('coco/segm_mAP').steps == [100, 200]


def test_a_truncated_log_is_one_line_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_log(tmp_path, log_rows())
    path.write_text(path.read_text()[:-30])
    log, problems = read_log(tmp_path)
    assert len(problems) == 1
    assert 'cut short' in problems[0]
    assert str(path) in problems[0]
    assert log.curve('loss').steps[-1] == 600
    assert log.curve('coco/segm_mAP').steps == [200, 400]


def test_nan_and_what_is_no_number_leave_gaps(tmp_path: Path) -> None:
    rows = [row(20, 1), row(40, float('nan')), row(60, 3), {'coco/segm_mAP': None, 'step': 60}]
    write_log(tmp_path, rows)
    log, problems = read_log(tmp_path)
    assert problems == []
    assert log.curve('loss').values == [1, None, 3]
    assert log.curve('coco/segm_mAP').steps == []
    assert 'NaN' in json.dumps(rows)
