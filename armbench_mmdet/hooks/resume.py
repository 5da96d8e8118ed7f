"""A run that is resumed goes on exactly where it was: the place in the data, random numbers, batch-norm statistics."""

from logging import WARNING
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from armbench_mmdet.configs import ABSENT, leaves
from armbench_mmdet.engine.loops import (
    TRAINING,
    VALIDATION,
    ResumableEpochLoop,
    ResumableIterLoop,
    run_seed,
    seed_generators,
)
from armbench_mmdet.errors import InputError

_FROM_CHECKPOINT = ('param_scheduler', 'optim_wrapper.optimizer', 'optim_wrapper.paramwise_cfg', 'auto_scale_lr')
"""Settings whose values come out of a checkpoint, so that others would not be followed."""
_FOLLOWED = ('model', 'optim_wrapper', 'train_dataloader', 'train_cfg', 'custom_hooks')
_NO_MATTER = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'data_root', 'batch_size')
_NAMES = {'images': 'images', 'batch_size': 'batch size', 'processes': 'processes', 'epoch_length': 'batches an epoch'}


@HOOKS.register_module()
class ResumeHook(Hook):
    """Keeps in each checkpoint where in the data the run is, and takes a resumed run there.

    A checkpoint of another seed, of another place in an epoch than this data has, or without an optimizer is refused,
    and so is another optimizer or schedule than the checkpoint's. Where images, batch size, number of processes or
    other settings of training have changed, the run goes on with them, and a warning that it is no longer the same
    run. A validation that follows the checkpoint comes before training goes on; a run that was finished is validated
    and says so.
    """

    priority = 'LOWEST'  # the validation comes after every other hook has prepared itself

    def __init__(self) -> None:
        self._checkpoint: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the place in the data, and the gradient that waits for the rest of its batches, if any."""
        loop = runner.train_loop
        if not isinstance(loop, (ResumableEpochLoop, ResumableIterLoop)):
            return
        checkpoint['meta']['settings'] = _settings(runner)
        checkpoint['meta']['data'] = {**_data_facts(runner), 'batches_done': loop.batches_done}
        gradients = {name: p.grad.cpu() for name, p in _model(runner).named_parameters() if p.grad is not None}
        if gradients and 'optimizer' in checkpoint:
            checkpoint['gradients'] = gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint before the run takes anything from it.

        Raises:
            InputError: The run cannot be resumed from it.
        """
        if not runner._resume:
            return
        needed = ['meta', 'message_hub', 'optimizer', *(['param_schedulers'] if runner.param_schedulers else [])]
        missing = [name for name in needed if name not in checkpoint]
        if missing:
            raise InputError(
                f'This checkpoint cannot be resumed from, it holds no {", ".join(missing)} (in {runner._load_from}). '
                f'Resume from the latest checkpoint, or start afresh: --cfg-options load_from={runner._load_from}'
            )
        seed = checkpoint['meta'].get('seed')
        if seed is not None and seed != run_seed(runner):
            raise InputError(
                f'randomness.seed must be the one the run was started with, {seed}, got {run_seed(runner)} '
                f'(in {runner._load_from}); resume with --cfg-options randomness.seed={seed}'
            )
        _compare_settings(runner, checkpoint['meta'].get('settings'))
        self._checkpoint = {name: checkpoint.get(name, {}) for name in ('meta', 'gradients')}

    def before_train(self, runner: Runner) -> None:
        """Take a resumed run to its place, and validate if that is what comes next.

        Raises:
            InputError: The place is in the middle of an epoch of other data.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        loop = runner.train_loop
        if checkpoint is None or not isinstance(loop, (ResumableEpochLoop, ResumableIterLoop)):
            return
        if 'data' in checkpoint['meta']:
            loop.batches_done = _compare_data(runner, checkpoint['meta']['data'])
        for name, parameter in _model(runner).named_parameters():
            if name in checkpoint['gradients']:
                parameter.grad = checkpoint['gradients'][name].to(parameter.device)
        source = runner._load_from or 'the latest checkpoint'
        message = f'resumed from {source} at iteration {runner.iter} of {runner.max_iters}'
        if runner.iter >= runner.max_iters:
            message = f'this run was finished at iteration {runner.iter}: nothing to train, validating'
        print_log(message, 'current')
        if runner.val_loop is not None and loop.validation_is_due():
            runner.val_loop.run()


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _settings(runner: Runner) -> dict[str, str]:
    """The settings that decide how training goes on, by dotted key and as text: a checkpoint holds plain data."""
    return leaves(
        {key: runner.cfg[key] for key in (*_FOLLOWED, 'param_scheduler', 'auto_scale_lr') if key in runner.cfg}
    )


def _compare_settings(runner: Runner, then: dict[str, str] | None) -> None:
    """Compare the settings with the checkpoint's, if it has them: say which are new, refuse those not followed."""
    now = _settings(runner)
    then = now if then is None else then
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    keys = [key for key in keys if key.rpartition('.')[2] not in _NO_MATTER]
    changes = {key: f'\n  {key}: {then.get(key, ABSENT)} → {now.get(key, ABSENT)}' for key in keys}
    refused = [change for key, change in changes.items() if key.startswith(_FROM_CHECKPOINT)]
    if refused:
        raise InputError(
            f'This run cannot be resumed with another optimizer or schedule (in {runner._load_from}):'
            f'{"".join(refused)}\nResume with the former settings, or start afresh from its weights, without --resume: '
            f'--cfg-options load_from={runner._load_from}'
        )
    if changes:
        said = f'resumed with other settings, which hold from here on:{"".join(changes.values())}'
        print_log(said, 'current', WARNING)


def _data_facts(runner: Runner) -> dict[str, int]:
    """What must stay the same for a place in the data to mean the same."""
    loader = runner.train_dataloader
    return {
        'images': len(loader.dataset),
        'batch_size': loader.batch_sampler.batch_size,
        'processes': runner.world_size,
        'epoch_length': len(loader),
    }


def _compare_data(runner: Runner, then: dict[str, int]) -> int:
    """Compare the data with the checkpoint's; returns how many batches of this epoch are done."""
    now = _data_facts(runner)
    changes = [f'{now[key]} {name} instead of {then[key]}' for key, name in _NAMES.items() if now[key] != then[key]]
    if changes and then['batches_done']:
        raise InputError(
            f'This run cannot be resumed in the middle of an epoch: there are {", ".join(changes)} (in '
            f'{runner._load_from}). Resume with the former data and batch size, or from the end of an epoch.'
        )
    if changes:
        print_log(f'resumed with {", ".join(changes)}: not exactly the run it would have been', 'current', WARNING)
    return then['batches_done']


@HOOKS.register_module()
class SeedingHook(Hook):
    """Seeds every training iteration and every validation by its number and the process's rank.

    What a model draws at random (samples, points, dropout) then is the same in a run that was resumed, and does not
    depend on what else has drawn random numbers.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed an iteration."""
        seed_generators(run_seed(runner), TRAINING, runner.iter, runner.rank)

    def before_val(self, runner: Runner) -> None:
        """Seed a validation."""
        seed_generators(run_seed(runner), VALIDATION, runner.iter, runner.rank)


@HOOKS.register_module()
class BufferBroadcastHook(Hook):
    """Gives every process the buffers of the first before a validation.

    Running means and variances of batch norm drift apart between processes, each seeing its own images. Checkpoints
    hold those of the first process; so it is those that are validated, whichever process an image falls to, and a
    resumed run has the same. Training does not use them.
    """

    priority = 'VERY_HIGH'  # before weights are exchanged for averaged ones

    def before_val_epoch(self, runner: Runner) -> None:
        """Send the buffers around."""
        if runner.world_size > 1:
            for buffer in runner.model.buffers():
                broadcast(buffer)
