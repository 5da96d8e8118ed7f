"""The cost of a sweep's trial besides its training, against bare ``study.optimize``; and two workers against one.

For the cost, both run the same command, which reports a number and ends, on a journal file and the minibench search
space. Ours also writes the trial's config, keeps the log, the outcome and signs of life, writes the table of trials,
and in the end the page. It must stay under 300 ms.

For the workers, eight short trainings on minibench run one after the other with all cores each, and then two at a
time: the same work, for nothing is pruned.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from armbench_mmdet.sweep.space import Space, load_space
from armbench_mmdet.sweep.workers import Sweep

LIMIT_MS = 300
_SPACE = Path(__file__).parents[2] / 'configs/sweeps/mask-rcnn_minibench.py'
_SCRIPT = """echo '{"iteration": 1, "values": {"coco/segm_mAP": 0.5}}' > "$(dirname "$1")/reports.jsonl"\n"""
_TRAIN = (sys.executable, str(Path(__file__).parents[1] / 'train.py'))
_SHORT = """
_base_ = {space!r}
base = {base!r}
pruner = dict(_delete_=True, type='NopPruner')
fixed = {{
    'train_cfg.max_iters': 60,
    'train_cfg.val_interval': 60,
    'param_scheduler.CosineAnnealingLR.end': 60,
    'default_hooks.checkpoint.interval': 60,
}}
"""


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
    if not small:
        yield _workers(load_space(_SPACE))


def _workers(space: Space) -> dict[str, Any]:
    """Seconds of eight trainings, by two workers and by one."""
    seconds, done = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder, 'short.py')
        short.write_text(_SHORT.format(space=str(_SPACE), base=str(space.base.resolve())))
        for workers in (1, 2):
            start_s = time.perf_counter()
            sweep = Sweep(
                load_space(short),
                f'{workers}',
                f'{folder}/{workers}.log',
                Path(folder, str(workers)),
                _TRAIN,
                8,
                [None] * workers,
            )
            sweep.run()
            seconds[workers] = time.perf_counter() - start_s
            done[workers] = [trial.state.name for trial in sweep.study.get_trials()]
    return {
        'name': 'sweep',
        'case': 'eight minibench trainings of 60 iterations, two at a time (peer: one at a time)',
        'ours': seconds[2],
        'peer': seconds[1],
        'unit': 's',
        'ratio': seconds[1] / seconds[2],
        'equal': done[1] == done[2] == ['COMPLETE'] * 8,
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
    sweep = Sweep(space, 'study', str(root / 'journal.log'), root, command, n_trials)
    start_s = time.perf_counter()
    sweep.run()
    elapsed_s = time.perf_counter() - start_s
    return [trial.value for trial in sweep.study.get_trials()], elapsed_s / n_trials * 1e3


def through_optuna(root: Path, space: Space, command: tuple[str, ...], n_trials: int) -> tuple[list[float], float]:
    """Values, and milliseconds a trial, of ``study.optimize``."""
    root.mkdir()
    storage = JournalStorage(JournalFileBackend(str(root / 'journal.log')))
    study = optuna.create_study(storage=storage, direction='maximize', sampler=space.sampler(0))

    def objective(trial: optuna.Trial) -> float:
        space.config(trial)
        folder = root / f'trial_{trial.number:04d}'
        folder.mkdir()
        return train(folder, command)

    start_s = time.perf_counter()
    study.optimize(objective, n_trials=n_trials)
    elapsed_s = time.perf_counter() - start_s
    return [trial.value for trial in study.get_trials()], elapsed_s / n_trials * 1e3
