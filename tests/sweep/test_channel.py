"""Training and worker talk through files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from armbench_mmdet.sweep.channel import Reporter, Reports


def test_reports_and_answers(tmp_path: Path) -> None:
    reports, heard = Reports(tmp_path), []
    reporter = Reporter(tmp_path, os.getpid())
    thread = threading.Thread(target=lambda: heard.extend(reporter.report(value) for value in (0.1, 0.2, 0.3)))
    thread.start()
    for count, stop in ((1, False), (2, False), (3, True)):
        while len(reports.values()) < count:
            pass
        reports.answer(stop)
    thread.join()
    assert reports.values() == [0.1, 0.2, 0.3]
    assert heard == [False, False, True]


def test_late_answer_counts_at_the_next_report(tmp_path: Path) -> None:
    reporter, reports = Reporter(tmp_path, os.getpid()), Reports(tmp_path)
    assert reporter.report(0.1, patience_s=0) is False
    reports.answer(stop=True)
    assert reporter.report(0.2, patience_s=0) is True


def test_half_written_lines_wait(tmp_path: Path) -> None:
    (tmp_path / 'reports.jsonl').write_text('{"value": 0.5}\n{"val')
    assert Reports(tmp_path).values() == [0.5]


@pytest.mark.parametrize(('pid', 'is_abandoned'), [(os.getpid(), False), (1, False), (2**22 + 1, True)])
def test_gone_worker_is_noticed(pid: int, is_abandoned: bool, tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, pid)
    assert reporter.is_abandoned() is is_abandoned
    if is_abandoned:
        assert reporter.report(0.5) is False, 'nobody will answer'
