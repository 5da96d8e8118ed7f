"""Two finished runs on the same small data, and the report of both."""

from pathlib import Path

import pytest
from synthetic_runs import MASK2FORMER, write_run

from armbench_mmdet.report.page import Report, gather, write_report


@pytest.fixture(scope='session')
def work_dirs(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp('report_runs')
    return [
        write_run(root / 'first', minibench_root),
        write_run(root / 'second', minibench_root, MASK2FORMER, noise_px=4.0, seed=1),
    ]


@pytest.fixture(scope='session')
def report(work_dirs: list[Path]) -> Report:
    return gather(work_dirs)


@pytest.fixture(scope='session')
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(report, tmp_path_factory.mktemp('report'))
