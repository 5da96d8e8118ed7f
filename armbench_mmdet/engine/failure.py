"""Failures of a run in words that name the batch, the image or the process."""

import contextlib
import inspect
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import mmdet.registry
import torch
from mmengine.registry import Registry
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from armbench_mmdet.datasets.images import image_in_work
from armbench_mmdet.errors import InputError, UnreadableImageError, nearest
from armbench_mmdet.run_folder import Ending, Reason
from armbench_mmdet.system import CODE


def image_lines(batch: Any) -> list[str]:
    """One line for each image of a batch from mmdet's loaders: ``file (width×height, instances)``, as far as known."""
    lines = []
    for sample in (batch.get('data_samples') if isinstance(batch, Mapping) else None) or ():
        height, width = sample.get('img_shape', ('?', '?'))[:2]
        instances = len(sample.get('gt_instances', ()))
        lines.append(f'{sample.get("img_path", "an unnamed image")} ({width}×{height} px, {instances} instances)')
    return lines


class RunError(InputError):
    """A run failed for a reason that its record names; the message has a line for what happened, and indented ones."""

    def __init__(self, reason: Reason, *lines: str) -> None:
        super().__init__('\n  '.join(lines))
        self.reason: Reason = reason


_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
_DEAD_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.+)')
_OUR_ERROR = re.compile(rf'^{re.escape(InputError.__module__)}\.\w+: ', re.MULTILINE)
_LOST_PROCESS = 'gloo/transport'
_LATE_S = 5.0  # a segmentation fault writes a core file first
_WORKER_REMEDY = (
    'If it was killed, the machine ran out of memory: lower num_workers. After a bus error, shared memory is too '
    'small: give the container a larger --shm-size, or set num_workers=0. After a '
    'segmentation fault, look at the image (tools/check_data.py).'
)


@contextlib.contextmanager
def explained_failures(runner: Runner) -> Iterator[None]:
    """Turn what a user can mend into an :class:`InputError`, and tell hooks how the run ended.

    Every end of a training but the planned one, which is mmengine's ``after_train``, calls ``after_abort(runner,
    ending)`` of the hooks that have it; it may come before ``before_train``.

    Raises:
        InputError: Memory ran out, a data-loading process died or could not read an image, or another process of the
            run is gone.
    """
    try:
        yield
    except KeyboardInterrupt:
        runner.call_hook('after_abort', ending=Ending('stopped', 'interrupted', iterations=runner.iter))
        raise
    except Exception as error:
        explained = explain(_dead_process(error), runner) or error
        message = str(explained) or type(error).__name__
        iterations = runner.iter if isinstance(runner._train_loop, BaseLoop) else 0  # the loop may be what failed
        runner.call_hook('after_abort', ending=Ending('failed', message, _reason_of(explained), iterations))
        if explained is error:
            raise
        raise explained from error


def _reason_of(error: Exception) -> Reason:
    if isinstance(error, RunError):
        return error.reason
    if isinstance(error, UnreadableImageError):
        return 'data'
    return 'input' if isinstance(error, InputError) else 'crash'


_UNKNOWN_TYPE = re.compile(r'([\w.]+) is not in the \S*?::(.+?) registry')
_UNKNOWN_KEY = re.compile(r"got an unexpected keyword argument '(\w+)'")
_REFUSALS = (AssertionError, ImportError, KeyError, OSError, TypeError, ValueError)  # of libraries, while they build
_BUILDERS = ('build_from_cfg', 'build_dataloader', 'build_runner_from_cfg')
_CLASS_COUNT = re.compile(r'The `num_classes` \((\d+)\) in (\w+) of .* `classes` (\d+)', re.DOTALL)


@contextlib.contextmanager
def explained_config() -> Iterator[None]:
    """Turn what mmengine says of a config that it cannot build into an :class:`InputError`.

    Raises:
        InputError: A type, a key or a value is refused, or the number of classes is not the data's.
    """
    try:
        yield
    except InputError:
        raise
    except _REFUSALS as error:
        if explained := explain_config(error):
            raise explained from error
        raise


def unknown_type(name: str, kind: str) -> str:
    """What is wrong with a type that no registry of a kind (``transform``, ``optimizer``, …) has."""
    registries = [one for one in vars(mmdet.registry).values() if isinstance(one, Registry) and one.name == kind]
    hint = nearest(name, {known for registry in registries for known in registry.module_dict})
    return f'type must be a known {kind}, got {name!r}{hint}'


def explain_config(error: Exception) -> InputError | None:
    """The error of building what a config describes in a user's terms, None if it is another one."""
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)  # without its quotes
    if classes := _CLASS_COUNT.search(message):
        return InputError(
            f'num_classes must be {classes[3]}, the number of classes of the data, got {classes[1]} in the '
            f"model's {classes[2]}; set it there, or leave it to the base config"
        )
    if isinstance(error, ImportError) and 'pip install' in message:  # an optional package of mmengine's
        return InputError(message)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builders = [frame.f_locals for frame in frames if frame.f_code.co_name in _BUILDERS]
    if not builders:
        return None
    # mmengine calls a data loader without a registry.
    built = builders[-1].get('obj_cls', builders[-1].get('runner_cls', DataLoader))
    if '"type"' in message:
        return InputError(f'type must be in every dict that builds something; {message}')
    if unknown := _UNKNOWN_TYPE.search(message):
        return InputError(unknown_type(unknown[1], unknown[2]))
    if unknown := _UNKNOWN_KEY.search(message):
        known = {name for base in inspect.getmro(built) for name in inspect.signature(base).parameters}
        return InputError(f'{built.__name__} has no option {unknown[1]!r}{nearest(unknown[1], known)}')
    is_ours = frames[-1].f_code.co_filename.startswith(str(CODE))  # then it may be a defect, unless it is of a value
    is_refusal = isinstance(error, ValueError) or (isinstance(error, _REFUSALS) and not is_ours)
    return InputError(f'{built.__name__}: {message}') if is_refusal else None


def explain(error: Exception, runner: Runner) -> InputError | None:
    """The error in a user's terms, None if there is nothing to add to it."""
    message = str(error)
    if isinstance(error, InputError):
        ours = _OUR_ERROR.split(message)  # from a data-loading process it comes with a traceback before it
        return type(error)(ours[-1].strip()) if len(ours) > 1 else None
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or _OUT_OF_MEMORY.search(message):
        return _out_of_memory(message, runner)
    if dead := _DEAD_WORKER.search(message):
        return _dead_worker(dead)
    if isinstance(error, torch.distributed.DistError) or _LOST_PROCESS in message:
        return RunError('lost process', 'Another process of this run has ended; its message says why.')
    return explain_config(error)


def _dead_process(error: Exception) -> Exception:
    """The error, or what torch's handler of a signal says a moment later: a data-loading process has died."""
    try:
        if isinstance(error, ConnectionError | EOFError):
            time.sleep(_LATE_S)
    except RuntimeError as dead:
        return dead
    return error


def _out_of_memory(message: str, runner: Runner) -> RunError:
    phase, batch = getattr(runner, 'batch_in_work', None) or ('train', None)
    where = f'iteration {runner.iter + 1}' if phase == 'train' else f'a batch of {phase}'
    accumulation = ' (optim_wrapper.accumulative_counts keeps the effective size)' if phase == 'train' else ''
    return RunError(
        'out of memory',
        f'Out of memory at {where}: {(message.strip() or "no memory is left").splitlines()[0]}',
        *image_lines(batch),
        f'Lower {phase}_dataloader.batch_size{accumulation} or the image size; on a GPU, train with --amp.',
    )


def _dead_worker(dead: re.Match[str]) -> RunError:
    lines = []
    for pid in map(int, dead[1].split(',')):
        index, path = image_in_work(pid) or ('?', 'that is not known')
        lines.append(f'Process {pid}, at image {path} (index {index}).')
    return RunError('lost process', f'A data-loading process died: it {dead[2].strip(" .")}.', *lines, _WORKER_REMEDY)
