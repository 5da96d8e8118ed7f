"""kill −9 at any moment and ``--resume`` give the run that was never killed, bit for bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from killed_run import ITERATIONS, live
from toy_run import assert_equal

from armbench_mmdet.engine.checkpoints import read_checkpoint

DEATHS = 5


def outcome(work_dir: Path) -> dict[str, Any]:
    """All that a finished run leaves behind, but for times."""
    checkpoint = read_checkpoint(work_dir / f'iter_{ITERATIONS}.pth')
    history = {
        name: buffer.data[0].tolist()
        for name, buffer in checkpoint['message_hub']['log_scalars'].items()
        if 'time' not in name
    }
    rows = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            kind = 'val' if 'coco/segm_mAP' in row else 'train'
            rows[kind, row['step']] = {
                key: value for key, value in row.items() if 'time' not in key and 'memory' not in key
            }
    return {
        **{key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')},
        'history': history,
        'rows': rows,
        'best': {path.name: read_checkpoint(path)['state_dict'] for path in work_dir.glob('best_*.pth')},
        'files': sorted(path.name for path in work_dir.iterdir() if path.name.endswith(('.pth', '.sha256', '.draft'))),
    }


@pytest.fixture(scope='module')
def uninterrupted(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The outcome of the run that nobody killed, by number of training processes."""
    outcomes = {}
    for processes in (1, 2):
        work_dir = tmp_path_factory.mktemp(f'whole_{processes}')
        assert live(minibench_root, work_dir, processes=processes)
        outcomes[processes] = outcome(work_dir)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'processes', 'seed'), [(0, 1, 0), (2, 1, 1), (0, 2, 2)])
def test_killed_and_resumed_is_never_killed(
    workers: int, processes: int, seed: int, uninterrupted: dict, minibench_root: Path, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    deaths = 0
    while not live(minibench_root, tmp_path, workers, processes, draw.randint(8, 50) if deaths < DEATHS else None):
        deaths += 1
    diary = (tmp_path / 'deaths.txt').read_text().splitlines()
    assert len(diary) == deaths == DEATHS, diary
    assert any('file' in moment or 'sync' in moment or 'rename' in moment for moment in diary), diary
    assert_equal(outcome(tmp_path), uninterrupted[processes])
