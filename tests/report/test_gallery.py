"""The pictures on a page: all that fit, the best ranks first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.report import pictures
from armbench_mmdet.report.collect import collect_runs
from armbench_mmdet.report.content import Report
from armbench_mmdet.report.pictures import gallery


def test_every_result_has_pictures_of_every_kind(report: Report) -> None:
    found = {(shot.run, shot.picture.subset, shot.picture.class_name, shot.picture.kind) for shot in report.shots}
    assert len(found) == 2 * 3 * 3 * 3
    assert all(shot.source.startswith('data:image/jpeg;base64,/9j/') for shot in report.shots)


def test_lower_ranks_give_way_to_the_budget(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [shot for shot in report.shots if shot.run == 'first']
    drawn = iter([[shot.picture for shot in own if shot.picture.subset == subset] for subset in SUBSETS])
    monkeypatch.setattr(pictures, 'pictures', lambda path: next(drawn))
    first_ranks = sum(len(shot.source) for shot in own if shot.rank == 0)
    kept, notes = gallery(report.runs[:1], budget_bytes=first_ranks)
    assert [shot.source for shot in kept] == [shot.source for shot in own if shot.rank == 0]
    assert notes == [
        f'{len(own) - len(kept)} of {len(own)} pictures, of lower ranks, are left out to keep the page small'
    ]


def test_a_result_that_cannot_be_drawn_is_one_line(work_dirs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(work_dirs[0], tmp_path / 'run', ignore=shutil.ignore_patterns('[zs]*_test.*', '*.segm.json'))
    shots, notes = gallery(collect_runs([tmp_path / 'run'])[0])
    assert (shots, len(notes)) == ([], 1)
    assert notes[0].startswith('run: no pictures of mix-object-tote test: ')
