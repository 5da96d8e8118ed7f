"""The record of a run: what a stranger needs to repeat it, and what became of each attempt."""

import logging
import shlex
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.files import sha256_of, write_atomically
from armbench_mmdet.run_folder import RECORD, Attempt, Ending, Git, RunRecord, read_record, write_record
from armbench_mmdet.system import command_line, git_state, hardware, installed_versions


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Writes ``record.json`` into the work directory: seed, data, and for each attempt its start and end, command,
    code, packages and machine (:class:`~armbench_mmdet.run_folder.RunRecord`).

    A run that is resumed gets another attempt. What a checkout has changed since its revision is kept beside as
    ``git.diff``. ``status`` stays ``running`` when a process is killed.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._record: RunRecord | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin an attempt."""
        if is_main_process():
            self._record = _begun(runner)
            _write(runner, self._record)

    def after_train(self, runner: Runner, ending: Ending | None = None) -> None:
        """Note that the run is finished, was stopped or has failed."""
        if self._record is not None:
            unreadable = [path for one in _datasets(runner) for path in getattr(one, 'unreadable_images', list)()]
            self._record.end(ending or Ending('finished', iterations=runner.iter), _now(), unreadable)
            _write(runner, self._record)

    after_abort = after_train


def _begun(runner: Runner) -> RunRecord:
    """The record with a new attempt."""
    work_dir = Path(runner.work_dir)
    earlier = read_record(work_dir) if runner._resume else None
    attempts = earlier.attempts if earlier else []
    sources = map(GroundTruthSource.of, (one.metainfo for one in _datasets(runner)))
    files = dict.fromkeys(source.ann_file for source in sources if source)
    data = {file: f'sha256:{sha256_of(Path(file))}' for file in files}
    changed = [file for file, digest in data.items() if earlier and digest not in earlier.data.values()]
    if changed:
        message = f'resumed on other annotations than before: {", ".join(changed)}; not the run it would have been'
        print_log(message, 'current', logging.WARNING)
    revision, patch = git_state()
    diff = f'git-{len(attempts) + 1}.diff' if attempts else 'git.diff'
    if patch:
        write_atomically(work_dir / diff, patch)
    attempt = Attempt(
        started=_now(),
        command=shlex.join(command_line()),
        resumed_from=str(runner._load_from) if runner._resume else None,
        start_iter=runner.iter,
        world_size=runner.world_size,
        git=Git(revision, diff if patch else None),
        versions=installed_versions(),
        hardware=hardware(),
    )
    return RunRecord(
        config=str(runner.cfg.filename), seed=runner.seed, status='running', data=data, attempts=[*attempts, attempt]
    )


def _datasets(runner: Runner) -> Iterator[Any]:
    """The data sets with an annotation file, those inside wrappers such as ``RepeatDataset`` included."""
    left = [loop.dataloader.dataset for loop in (runner.val_loop, runner.train_loop) if loop is not None]
    while left:
        dataset = left.pop()
        if inner := getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None):
            left += reversed(inner) if isinstance(inner, list) else [inner]
        elif GroundTruthSource.of(getattr(dataset, 'metainfo', None)):
            yield dataset


def _write(runner: Runner, record: RunRecord) -> None:
    try:
        write_record(Path(runner.work_dir), record)
    except OSError as error:  # not to hide why a run has failed
        print_log(f'no record of this run: {error} (in {Path(runner.work_dir) / RECORD})', 'current', logging.WARNING)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')
