"""The record of a run: what a stranger needs to repeat it, and what became of each attempt."""

from __future__ import annotations

import json
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

from armbench_mmdet.engine.checkpoints import write_atomically
from armbench_mmdet.files import sha256_of
from armbench_mmdet.system import command_line, git_state, hardware, installed_versions

SCHEMA_VERSION = 1
FILE_NAME = 'record.json'


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Writes ``record.json`` into the work directory: seed, data, and for each attempt its start and end, command,
    code, packages and machine.

    A run that is resumed gets another attempt. What a checkout has changed since its revision is kept beside as
    ``git.diff``. A record that cannot be written is a warning, never the end of a run; ``status`` stays ``running``
    when a process is killed.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._path: Path | None = None
        self._record: dict[str, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Begin an attempt."""
        if not is_main_process():
            return
        self._path = Path(runner.work_dir) / FILE_NAME
        try:
            self._record = self._begun(runner)
        except OSError as error:
            print_log(f'no record of this run: {error} (in {self._path})', 'current', logging.WARNING)
            self._path = None
        self._write()

    def after_train(self, runner: Runner) -> None:
        """Note that the run is finished."""
        self._end(runner, 'finished', None, runner.iter)

    def after_abort(self, runner: Runner, status: str, message: str, iterations: int) -> None:
        """Note that the run was stopped or has failed; other hooks and the launcher call this."""
        self._end(runner, status, message, iterations)

    def _begun(self, runner: Runner) -> dict[str, Any]:
        """The record with a new attempt."""
        assert self._path is not None
        attempts = _earlier_attempts(self._path) if runner._resume else []
        loops = [loop for loop in (runner.train_loop, runner.val_loop) if loop is not None]
        files = [str(one.metainfo['ann_file']) for loop in loops for one in leaf_datasets(loop.dataloader.dataset)]
        attempt = {
            'started': _now(),
            'ended': None,
            'status': 'running',
            'message': None,
            'command': shlex.join(command_line()),
            'resumed_from': str(runner._load_from) if runner._resume else None,
            'start_iter': runner.iter,
            'end_iter': None,
            'world_size': runner.world_size,
            'git': self._git(len(attempts)),
            'versions': installed_versions(),
            'hardware': hardware(),
            'unreadable_images': [],
        }
        return {
            'schema_version': SCHEMA_VERSION,
            'config': str(runner.cfg.filename),
            'seed': runner.seed,
            'status': 'running',
            'message': None,
            'data': {file: f'sha256:{sha256_of(Path(file))}' for file in dict.fromkeys(files)},
            'attempts': [*attempts, attempt],
        }

    def _git(self, earlier: int) -> dict[str, str | None]:
        assert self._path is not None
        revision, patch = git_state()
        name = f'git-{earlier + 1}.diff' if earlier else 'git.diff'
        if patch:
            write_atomically(self._path.with_name(name), patch.encode())
        return {'revision': revision, 'diff': name if patch else None}

    def _end(self, runner: Runner, status: str, message: str | None, iterations: int) -> None:
        if self._path is None or not self._record:
            return
        loops = [loop for loop in (runner.train_loop, runner.val_loop) if loop is not None]
        unreadable = [
            path
            for loop in loops
            for one in leaf_datasets(loop.dataloader.dataset)
            for path in getattr(one, 'unreadable_images', list)()
        ]
        ending = {'status': status, 'message': message}
        self._record |= ending
        self._record['attempts'][-1] |= {
            **ending,
            'ended': _now(),
            'end_iter': iterations,
            'unreadable_images': unreadable,
        }
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            write_atomically(self._path, (json.dumps(self._record, indent=2, ensure_ascii=False) + '\n').encode())
        except OSError as error:
            print_log(f'no record of this run: {error} (in {self._path})', 'current', logging.WARNING)


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """The data sets with an annotation file inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is not None:
        for one in inner if isinstance(inner, list) else [inner]:
            yield from leaf_datasets(one)
    elif 'ann_file' in getattr(dataset, 'metainfo', {}):
        yield dataset


def _earlier_attempts(path: Path) -> list[dict[str, Any]]:
    """The attempts recorded so far; a record that cannot be read is kept under another name."""
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text())['attempts'])
    except (ValueError, KeyError, TypeError) as error:
        kept = path.replace(path.with_suffix('.broken.json'))
        print_log(f'the record of earlier attempts cannot be read: {error!r} (in {kept})', 'current', logging.WARNING)
        return []


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')
