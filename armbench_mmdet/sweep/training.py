"""The training process of a trial: started, listened to, ended, judged; and the hook by which it reports."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from armbench_mmdet.errors import InputError
from armbench_mmdet.run_folder import INTERRUPTED, read_record

VARIABLE = 'ARMBENCH_SWEEP'  # in the training's environment: the folder, the metric's name, the worker's process id
LOST = ('killed', 'lost process', 'interrupted')  # reasons that are not the trial's fault: it is tried again
LOG, RUN = 'train.log', 'run'
_REPORTS = 'reports.jsonl'
_HOOK = 'default_hooks.sweep.type=armbench_mmdet.sweep.training.SweepReportHook'
_PATIENCE_S = 30.0  # an iteration, and a checkpoint


class Outcome(NamedTuple):
    """What became of a training that was not stopped: its value, or why there is none.

    Attributes:
        value: The objective at the last validation.
        reason: Why it failed: as in the run's record, or ``no validation``, ``killed``.
        error: What it said, in one line.
    """

    value: float | None
    reason: str = ''
    error: str = ''


@HOOKS.register_module()
class SweepReportHook(Hook):
    """Writes the sweep's metric into the trial's folder after each validation.

    The sweep adds the hook on the command line and says in the environment where to report; without that it does
    nothing, so a dumped config that has it trains anywhere. A training whose worker is gone ends: nobody would take
    its result.
    """

    priority = 'LOWEST'  # after the checkpoint of this validation is written

    def __init__(self) -> None:
        self._given: dict[str, Any] = json.loads(os.environ.get(VARIABLE, '{}'))

    def before_train(self, runner: Runner) -> None:
        """End the process if its worker is gone."""
        self._check_worker()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End the process if its worker is gone."""
        self._check_worker()

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End the process if its worker is gone."""
        self._check_worker()

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Report the metric.

        Raises:
            InputError: The validation has no metric of that name.
        """
        if not self._given:
            return
        name, values = self._given['objective'], metrics or {}
        if name not in values:
            known = ', '.join(values) or 'none'
            raise InputError(f'objective must be one of the metrics logged at validation, {known}; got {name!r}')
        if is_main_process():
            with Path(self._given['folder'], _REPORTS).open('a') as file:
                file.write(json.dumps(float(values[name])) + '\n')

    def _check_worker(self) -> None:
        try:
            os.kill(self._given.get('worker_pid', os.getpid()), 0)
        except ProcessLookupError:
            raise SystemExit('the worker of this trial is gone') from None
        except PermissionError:
            pass


class Training:
    """The training process of a trial, started by the ordinary command.

    Args:
        folder: The trial's folder, with ``config.py``.
        command: The interpreter, then ``tools/train.py``.
        objective: Name of the metric.
        devices: The GPUs it sees, by index; several make it a distributed run. None leaves the environment as it is.
        threads: Environment variables that say how many threads it uses.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], objective: str, devices: str | None, threads: Mapping[str, str]
    ) -> None:
        self.folder = folder
        given = {'folder': str(folder.resolve()), 'objective': objective, 'worker_pid': os.getpid()}
        environment = {**os.environ, **threads, VARIABLE: json.dumps(given)}
        if devices is not None:
            environment['CUDA_VISIBLE_DEVICES'] = devices
        run, count = (
            [*command, str(folder / 'config.py'), '--work-dir', str(folder / RUN)],
            len((devices or '').split(',')),
        )
        if count > 1:
            run[1:1] = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(count)]
            run += ['--launcher', 'pytorch']
        with (folder / LOG).open('wb') as log:
            self._process = subprocess.Popen(
                [*run, '--cfg-options', _HOOK],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its group can be ended as a whole, and Ctrl-C is the sweep's to hear
            )

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the process to end; whether it has."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None

    def values(self) -> list[float]:
        """Return every value reported so far."""
        path = self.folder / _REPORTS
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [float(json.loads(line)) for line in lines if line.endswith('\n')]

    def end(self) -> None:
        """End the process and everything it started: it may finish its iteration, then it is killed."""
        if not self.has_ended(0):
            self._signal(signal.SIGTERM)
            if self.has_ended(_PATIENCE_S):
                (self.folder / RUN / INTERRUPTED).unlink(missing_ok=True)  # nobody resumes a trial
        self._signal(signal.SIGKILL)  # what it left behind
        self._process.wait()

    def outcome(self) -> Outcome:
        """Return what became of it, once it has ended."""
        status, values = self._process.returncode, self.values()
        if values and not math.isfinite(values[-1]):
            return Outcome(None, 'nan', f'the metric was {values[-1]}')
        if status == 0:
            return Outcome(values[-1]) if values else Outcome(None, 'no validation', 'it ended without one')
        if status < 0:
            return Outcome(None, 'killed', f'by {signal.Signals(-status).name}')
        try:
            record = read_record(self.folder / RUN)
        except InputError as error:
            return Outcome(None, 'crash', str(error))
        if record is not None and record.status == 'failed':
            return Outcome(None, record.reason or 'crash', (record.message or '').partition('\n')[0])
        if record is not None and record.status == 'stopped':
            return Outcome(None, 'killed', record.message or '')
        return Outcome(None, 'crash', self._last_words())

    def _last_words(self) -> str:
        """The last line of the log: of a training that ended before it had a record."""
        lines = (self.folder / LOG).read_text(errors='replace').split('\n')
        return next((line.strip()[:500] for line in reversed(lines) if line.strip()), '')

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:  # macOS says so of a group of dead processes
            print_log(f'could not end process group {self._process.pid}: {error}', logger='current')


def fresh_folder(study_folder: Path, number: int) -> Path:
    """Make a trial's folder; one that another study of the same name left there is moved aside."""
    folder = study_folder / f'trial_{number:04d}'
    if folder.exists():
        aside = next(path for n in range(1, 10_000) if not (path := folder.with_name(f'{folder.name}.old{n}')).exists())
        folder.rename(aside)
        print_log(f'{folder} was there already; moved to {aside.name}', logger='current')
    folder.mkdir(parents=True)
    return folder
