"""One trial: a folder, a configuration file, a training process, and what became of it."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log
from optuna.trial import TrialState

from armbench_mmdet.sweep.channel import VARIABLE, Reports
from armbench_mmdet.sweep.study import DIED

HOOKS = (
    'default_hooks.sweep.type=armbench_mmdet.hooks.sweep_report.SweepReportHook',
    'default_hooks.invalid_loss.type=CheckInvalidLossHook',
)
LOG = 'train.log'
_TAIL_BYTES = 20_000
_MEMORY = re.compile(r'out of memory|OutOfMemoryError|MemoryError|can.t allocate memory|Cannot allocate memory')
_NAN = re.compile(r'The loss is not finite|loss become infinite or NaN')  # LossGuardHook's words, mmdet's
_KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: Complete, pruned or failed.
        value: The objective at the last validation, for a complete trial.
        reason: Why it failed: ``NaN``, ``out of memory``, ``crash``, ``killed``, …
        error: The last line of its log, for a failed one.
        exit_status: The process's; negative for a signal.
        lost: How it was lost, if through no fault of its own (see :mod:`armbench_mmdet.sweep.study`).
    """

    state: TrialState
    value: float | None = None
    reason: str = ''
    error: str = ''
    exit_status: int | None = None
    lost: str = ''


def trial_folder(study_folder: Path, number: int) -> Path:
    """Return where a trial's files are."""
    return study_folder / f'trial_{number:04d}'


def fresh_folder(study_folder: Path, number: int) -> Path:
    """Make a trial's folder; one that another study of the same name left there is moved aside."""
    folder = trial_folder(study_folder, number)
    if folder.exists():
        aside = next(path for n in range(1, 10_000) if not (path := folder.with_name(f'{folder.name}.old{n}')).exists())
        folder.rename(aside)
        print_log(f'{folder} was there already; moved to {aside.name}', logger='current')
    folder.mkdir(parents=True)
    return folder


class Training:
    """The training process of a trial, started by the ordinary command.

    Args:
        folder: The trial's folder, with ``config.py``.
        command: The training command: the interpreter, then ``tools/train.py``.
        objective: Name of the metric.
        devices: The GPUs it sees, by index; several make it a distributed run. None leaves the environment as it is.
    """

    def __init__(self, folder: Path, command: Sequence[str], objective: str, devices: str | None) -> None:
        self.folder = folder
        self.reports = Reports(folder)
        given = {'folder': str(folder.resolve()), 'objective': objective, 'worker_pid': os.getpid()}
        environment = {**os.environ, VARIABLE: json.dumps(given)}
        if devices is not None:
            environment['CUDA_VISIBLE_DEVICES'] = devices
        count = len(devices.split(',')) if devices else 1
        with (folder / LOG).open('wb') as log:
            self.process = subprocess.Popen(
                _command(folder, command, count),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its group can be ended as a whole, and Ctrl-C is the driver's to hear
            )

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; whether it has."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """End the process and everything it started."""
        for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, None)):
            end_group(self.process.pid, number)
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
            end_group(self.process.pid, signal.SIGKILL)  # what it left behind
            return

    def outcome(self, is_pruned: bool) -> Outcome:
        """Return what became of it, once it has ended.

        Args:
            is_pruned: Whether it was told to stop.
        """
        status, values = self.process.returncode, self.reports.values()
        if is_pruned:
            return Outcome(TrialState.PRUNED, exit_status=status)
        tail = _tail(self.folder / LOG)
        error = _error(tail)
        if status == 0 and values and math.isfinite(values[-1]):
            return Outcome(TrialState.COMPLETE, values[-1], exit_status=0)
        if status == 0:
            reason = 'NaN' if values else 'no validation'
            return Outcome(TrialState.FAIL, reason=reason, error=f'the metric was {values[-1:]}', exit_status=0)
        if _MEMORY.search(tail):
            return Outcome(TrialState.FAIL, reason='out of memory', error=error, exit_status=status)
        if _NAN.search(tail) or (values and not math.isfinite(values[-1])):
            return Outcome(TrialState.FAIL, reason='NaN', error=error, exit_status=status)
        if -status in _KILLED:
            name = signal.Signals(-status).name
            return Outcome(TrialState.FAIL, reason='killed', error=f'by {name}', exit_status=status, lost=DIED)
        return Outcome(TrialState.FAIL, reason='crash', error=error, exit_status=status)


def _command(folder: Path, command: Sequence[str], device_count: int) -> list[str]:
    """The training's command line, through ``torchrun`` for several devices."""
    run, launcher = list(command), []
    if device_count > 1:
        run[1:1] = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(device_count)]
        launcher = ['--launcher', 'pytorch']
    return [*run, str(folder / 'config.py'), '--work-dir', str(folder / 'run'), *launcher, '--cfg-options', *HOOKS]


def end_group(group: int, number: int) -> None:
    """Send a signal to a group of processes, if there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:  # macOS says so of a group of dead processes
        print_log(f'could not end process group {group}: {error}', logger='current')


def _error(tail: str) -> str:
    """What went wrong, in one line: what ``run_tool`` says, else the last words."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith('error')]
    return (told or lines or [''])[-1][:500]


def _tail(path: Path) -> str:
    with path.open('rb') as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        return file.read().decode('utf-8', 'replace')
