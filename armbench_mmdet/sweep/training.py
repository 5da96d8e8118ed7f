"""The training process of a trial: started, listened to, ended, judged; and the hook by which it reports."""

import json
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from optuna.trial import TrialState

from armbench_mmdet.engine.checkpoints import latest_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.run_folder import read_record

VARIABLE = 'ARMBENCH_SWEEP'  # in the training's environment: the folder, the metrics' names, the worker's process id
CONFIG, LOG, RUN = 'config.py', 'train.log', 'run'
LOST = ('killed', 'lost process', 'interrupted')  # reasons that are not the trial's fault: it is tried again
_REPORTS = 'reports.jsonl'
_HOOK = 'default_hooks.sweep.type=armbench_mmdet.sweep.training.SweepReportHook'
_PATIENCE_S = 30.0  # an iteration, and a checkpoint


class Outcome(NamedTuple):
    """What became of a trial: why it failed, in a word and a line, or the metrics of the last validation by name."""

    reason: str = ''
    error: str = ''
    state: TrialState = TrialState.FAIL
    values: Mapping[str, float] = {}


@HOOKS.register_module()
class SweepReportHook(Hook):
    """Writes the sweep's metrics into the trial's folder after each validation.

    Besides the validation's own there are ``speed/median_ms``, milliseconds an image at this validation, and
    ``memory/peak_mb``, the most that the process has taken so far, of the GPU's memory where there is one.

    The environment says where to report; without that the hook does nothing, so a dumped config that has it trains
    anywhere. A training whose worker is gone ends: nobody would take its result.
    """

    priority = 'LOWEST'  # after the checkpoint of this validation is written

    def __init__(self) -> None:
        self._given: dict[str, Any] = json.loads(os.environ.get(VARIABLE, '{}'))

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Raise a ``ProcessLookupError`` if the trial's worker is gone."""
        os.kill(self._given.get('worker_pid', os.getpid()), 0)

    after_val_iter = after_train_iter

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float | None] | None = None) -> None:
        """Report the metrics.

        Raises:
            InputError: The validation has no metric of that name.
        """
        if not self._given or not is_main_process():
            return
        found, wanted = {**_costs(runner), **(metrics or {})}, self._given['metrics']
        values = {name: math.nan if value is None else float(value) for name, value in found.items() if name in wanted}
        if len(values) < len(wanted):
            raise InputError(
                f'objective and constraints must be among the metrics of a validation, {", ".join(found)}; '
                f'got {sorted(set(wanted) - set(values))}'
            )
        with Path(self._given['folder'], _REPORTS).open('a') as file:
            file.write(json.dumps({'iteration': runner.iter, 'values': values}) + '\n')


def _costs(runner: Runner) -> dict[str, float | None]:
    """Time and memory, as a metric of the last validation has them."""
    for metric in runner.val_loop.evaluator.metrics:
        speed = getattr(getattr(metric, 'result', None), 'speed', None)
        if speed is not None:
            peak_mb = speed.peak_gpu_memory_mb or speed.peak_memory_mb
            return {'speed/median_ms': speed.median_ms, 'memory/peak_mb': peak_mb}
    return {}


def training_command(command: Sequence[str], config: Path, work_dir: Path, devices: str | None) -> list[str]:
    """Return the command that trains a config; several devices make it a distributed run."""
    run, count = [*command, str(config), '--work-dir', str(work_dir)], len((devices or '').split(','))
    if count > 1:
        run[1:1] = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(count)]
        run += ['--launcher', 'pytorch']
    return run


class Training:
    """The training process of a trial, in the trial's folder; it reports metrics by their names.

    ``before`` is the folder of the trial's attempt before; if that left a checkpoint, it is resumed.
    """

    def __init__(
        self,
        folder: Path,
        run: Sequence[str],
        env: Mapping[str, str],
        metrics: Sequence[str],
        before: Path | None = None,
    ) -> None:
        self.folder, words = folder, [*run, '--cfg-options', _HOOK]
        given = {'folder': str(folder.resolve()), 'metrics': list(metrics), 'worker_pid': os.getpid()}
        env = {**env, VARIABLE: json.dumps(given)}
        checkpoint = latest_checkpoint(before / RUN) if before else None
        if before and checkpoint:
            words += ['--resume', str(checkpoint)]
            with suppress(FileNotFoundError):
                shutil.copy(before / _REPORTS, folder)
        with (folder / LOG).open('wb') as log:  # a session of its own can be ended as a whole, and hears no Ctrl-C
            self._process = subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the process to end; whether it has."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None

    def reports(self) -> list[dict[str, float]]:
        """Return the metrics of every validation so far; one that a resumed training did again counts once."""
        path = self.folder / _REPORTS
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith('\n')]
        return list({row['iteration']: row['values'] for row in rows}.values())

    def close(self) -> None:
        """End the process and all that it started: it may finish its iteration and a checkpoint, then it is killed."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of dead processes
                os.killpg(self._process.pid, number)
            self.has_ended(_PATIENCE_S)

    def outcome(self) -> Outcome:
        """Return what became of it, once it has ended."""
        status, reports = self._process.returncode, self.reports()
        if status == 0 and reports:
            return Outcome(state=TrialState.COMPLETE, values=reports[-1])
        if status == 0:
            return Outcome('no validation')
        if status < 0:
            return Outcome('killed', f'by {signal.Signals(-status).name}')
        record = read_record(self.folder / RUN)
        if record and record.status in ('failed', 'stopped'):
            return Outcome(record.reason or 'killed', (record.message or '').partition('\n')[0])
        return Outcome('crash', (self.folder / LOG).read_text(errors='replace').strip().rpartition('\n')[2][:500])
