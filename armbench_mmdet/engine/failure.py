"""Failures of a run in words that name the batch, the image or the process."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from armbench_mmdet.datasets.worker_notes import image_in_work
from armbench_mmdet.errors import InputError


def image_lines(batch: Any) -> list[str]:
    """One line for each image of a batch: ``file (width×height, instances)``, as far as its samples tell.

    Args:
        batch: As mmdet's data loaders give it: a dict with ``data_samples``.
    """
    samples = batch.get('data_samples', ()) if isinstance(batch, Mapping) else ()
    return [_image_line(sample) for sample in samples or ()]


def _image_line(sample: Any) -> str:
    facts = []
    if 'img_shape' in sample:
        height, width = sample.img_shape[:2]
        facts.append(f'{width}×{height} px')
    if 'gt_instances' in sample:
        facts.append(f'{len(sample.gt_instances)} instances')
    return f'{sample.get("img_path", "an unnamed image")} ({", ".join(facts) or "nothing known"})'


@HOOKS.register_module()
class CurrentBatchHook(Hook):
    """Remembers the batch in work, for whoever must name it when it fails.

    Attributes:
        batch: The batch, None between batches.
        phase: ``train``, ``val`` or ``test``.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.batch: Any = None
        self.phase = 'train'

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        """Take note of the batch."""
        self.batch, self.phase = data_batch, mode

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Let go of it."""
        self.batch = None


_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
_DEAD_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.+)')
_OUR_ERROR = re.compile(r'^armbench_mmdet\.errors\.\w+: ', re.MULTILINE)
_LOST_PROCESS = 'gloo/transport'
_LATE_S = 0.5
_WORKER_REMEDY = (
    'killed: the machine ran out of memory, lower num_workers; bus error: shared memory is too small, give the '
    'container a larger --shm-size or set num_workers=0 and persistent_workers=False; segmentation fault: look at the '
    'image (tools/check_data.py)'
)


@contextlib.contextmanager
def explained_failures(runner: Runner) -> Iterator[None]:
    """Turn what a user can mend into an :class:`InputError`, and tell the hooks of every end but the planned one.

    Hooks that have it get ``after_abort(runner, status, message, iterations)``: ``failed`` or, after Ctrl-C,
    ``stopped``, and how many iterations were finished.

    Args:
        runner: What runs inside the context.

    Raises:
        InputError: Memory ran out, a data-loading process died or could not read an image, or another process of the
            run is gone.
    """
    try:
        yield
    except KeyboardInterrupt:
        _tell(runner, 'stopped', 'interrupted')
        raise
    except Exception as error:
        explained = explain(_dead_process(error) or error, runner)
        _tell(runner, 'failed', str(explained or error) or type(error).__name__)
        if explained is None:
            raise
        raise explained from error


def _tell(runner: Runner, status: str, message: str) -> None:
    runner.call_hook('after_abort', status=status, message=message, iterations=runner.iter)


def _dead_process(error: Exception) -> RuntimeError | None:
    """What torch says of a data-loading process whose death may be behind an error; torch's signal may come late."""
    try:
        if isinstance(error, ConnectionError | EOFError):
            time.sleep(_LATE_S)
        _error_if_any_worker_fails()
    except RuntimeError as dead:
        return dead
    return None


def explain(error: Exception, runner: Runner) -> InputError | None:
    """The error in a user's terms, None if there is nothing to add to it."""
    message = str(error)
    if isinstance(error, InputError):
        ours = _OUR_ERROR.split(message)  # from a data-loading process it comes with a traceback before it
        return InputError(ours[-1].strip()) if len(ours) > 1 else None
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or _OUT_OF_MEMORY.search(message):
        return _out_of_memory(message, runner)
    dead = _DEAD_WORKER.search(message)
    if dead:
        return _dead_worker(dead)
    if isinstance(error, torch.distributed.DistError) or _LOST_PROCESS in message:
        return InputError('all processes of a run must live as long as it, got one that ended; its message says why')
    return None


def _out_of_memory(message: str, runner: Runner) -> InputError:
    watch = next((hook for hook in runner.hooks if isinstance(hook, CurrentBatchHook)), None)
    phase, batch = (watch.phase, watch.batch) if watch is not None else ('train', None)
    where = f'iteration {runner.iter + 1}' if phase == 'train' else f'a batch of {phase}'
    first_line = (message.strip() or 'no more to be had').splitlines()[0]
    accumulation = ' (optim_wrapper.accumulative_counts keeps the size that counts)' if phase == 'train' else ''
    lines = [
        f'memory must be enough for a batch, got at {where}: {first_line}',
        *(f'  {line}' for line in image_lines(batch)),
        f'  lower {phase}_dataloader.batch_size{accumulation} or the image size; on a GPU, train with --amp',
    ]
    return InputError('\n'.join(lines))


def _dead_worker(dead: re.Match[str]) -> InputError:
    pids, end = [int(pid) for pid in dead[1].split(',')], dead[2].strip(' .')
    lines = [f'data-loading processes must live as long as the run, got {len(pids)} that {end}']
    for pid in pids:
        image = image_in_work(pid)
        at = f'image {image[1]} (index {image[0]})' if image else 'an image that is not known'
        lines.append(f'  process {pid}, at {at}')
    return InputError('\n'.join([*lines, f'  {_WORKER_REMEDY}']))
