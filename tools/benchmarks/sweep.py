"""The cost of a sweep's trial besides its training: against bare ``study.optimize``.

Both run the same command, which reports a number and ends, on a SQLite file and the minibench search space. Ours
also writes, reloads and compares the trial's config, keeps the log, the outcome and a heartbeat, writes the table of
trials, and in the end the page. It must stay under 300 ms.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from armbench_mmdet.sweep.space import Space, load_space
from armbench_mmdet.sweep.workers import Sweep

LIMIT_MS = 300
_SPACE = Path(__file__).parents[2] / 'configs/sweeps/mask-rcnn_minibench.py'
_SCRIPT = 'echo 0.5 > "$(dirname "$1")/reports.jsonl"\n'


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Milliseconds a trial of both, less the process's own."""
    n_trials = 20 if small else 100
    space = load_space(_SPACE)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / 'train.sh').write_text(_SCRIPT)
        command = ('sh', str(root / 'train.sh'))
        process_ms = alone(root, command, n_trials)
        ours, ours_ms = through_sweep(root / 'ours', space, command, n_trials)
        peer, peer_ms = through_optuna(root / 'peer', space, command, n_trials)
    yield {
        'name': 'sweep',
        'case': f'overhead of a trial beside its process, {n_trials} trials (ours: at most {LIMIT_MS})',
        'ours': ours_ms - process_ms,
        'peer': peer_ms - process_ms,
        'unit': 'ms',
        'ratio': (peer_ms - process_ms) / (ours_ms - process_ms),
        'equal': ours == peer == [0.5] * n_trials,
    }


def train(folder: Path, command: tuple[str, ...]) -> float:
    """Run the command for one trial, without a sweep."""
    subprocess.run([*command, str(folder / 'config.py')], check=True)
    return 0.5 if (folder / 'reports.jsonl').exists() else float('nan')


def alone(root: Path, command: tuple[str, ...], n_trials: int) -> float:
    """Milliseconds of the process alone."""
    start_s = time.perf_counter()
    for _ in range(n_trials):
        train(root, command)
    return (time.perf_counter() - start_s) / n_trials * 1e3


def through_sweep(root: Path, space: Space, command: tuple[str, ...], n_trials: int) -> tuple[list[float], float]:
    """Values, and milliseconds a trial, of a sweep with one worker."""
    sweep = Sweep(space, 'study', str(root / 'study.db'), root, command, n_trials)
    start_s = time.perf_counter()
    sweep.run()
    elapsed_s = time.perf_counter() - start_s
    return [trial.value for trial in sweep.study.get_trials()], elapsed_s / n_trials * 1e3


def through_optuna(root: Path, space: Space, command: tuple[str, ...], n_trials: int) -> tuple[list[float], float]:
    """Values, and milliseconds a trial, of ``study.optimize``."""
    root.mkdir()
    study = optuna.create_study(storage=f'sqlite:///{root}/study.db', direction='maximize', sampler=space.sampler(0))

    def objective(trial: optuna.Trial) -> float:
        space.config(trial)
        folder = root / f'trial_{trial.number:04d}'
        folder.mkdir()
        return train(folder, command)

    start_s = time.perf_counter()
    study.optimize(objective, n_trials=n_trials)
    elapsed_s = time.perf_counter() - start_s
    return [trial.value for trial in study.get_trials()], elapsed_s / n_trials * 1e3
