"""A run that is resumed goes on exactly where it was: the place in the data, random numbers, batch-norm statistics."""

from logging import WARNING
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from armbench_mmdet.configs import ABSENT, leaves
from armbench_mmdet.engine.loops import TRAINING, VALIDATION, run_seed, seed_generators, validation_is_due
from armbench_mmdet.errors import InputError

# Settings whose values come out of a checkpoint, so that others would not be followed.
_FROM_CHECKPOINT = ('param_scheduler', 'optim_wrapper.optimizer', 'optim_wrapper.paramwise_cfg', 'auto_scale_lr')
_FOLLOWED = ('model', 'optim_wrapper', 'train_dataloader', 'train_cfg', 'custom_hooks')
_NO_MATTER = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'data_root', 'batch_size')


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
    _is_resumed = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the place in the data, and the gradient that waits for the rest of its batches, if any."""
        done = getattr(runner.train_loop, 'batches_done', 0)
        checkpoint['meta']['settings'] = _settings(runner)
        checkpoint['meta']['data'] = {**_data_facts(runner), 'batches_done': done}
        parameters = getattr(runner.model, 'module', runner.model).named_parameters()
        gradients = {name: p.grad.cpu() for name, p in parameters if p.grad is not None}
        if gradients and 'optimizer' in checkpoint:
            checkpoint['gradients'] = gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint before the run takes anything from it, then go to its place in the data.

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
        _compare(runner, checkpoint['meta'])
        loop: Any = runner.train_loop
        loop.batches_done = checkpoint['meta'].get('data', {}).get('batches_done', 0)
        for name, parameter in getattr(runner.model, 'module', runner.model).named_parameters():
            if name in checkpoint.get('gradients', {}):
                parameter.grad = checkpoint['gradients'][name].to(parameter.device)
        self._is_resumed = True

    def before_train(self, runner: Runner) -> None:
        """Say where a resumed run goes on, and validate if that is what comes next."""
        if not self._is_resumed:
            return
        source = runner._load_from or 'the latest checkpoint'
        message = f'resumed from {source} at iteration {runner.iter} of {runner.max_iters}'
        if runner.iter >= runner.max_iters:
            message = f'this run was finished at iteration {runner.iter}: nothing to train, validating'
        print_log(message, 'current')
        if runner.val_loop is not None and validation_is_due(runner.train_loop):
            runner.val_loop.run()


def _settings(runner: Runner) -> dict[str, str]:
    """The settings that decide how training goes on, by dotted key and as text: a checkpoint holds plain data."""
    return leaves(
        {key: runner.cfg[key] for key in (*_FOLLOWED, 'param_scheduler', 'auto_scale_lr') if key in runner.cfg}
    )


def _data_facts(runner: Runner) -> dict[str, int]:
    """What must stay the same for a place in the data to mean the same."""
    loader = runner.train_dataloader
    return {
        'images': len(loader.dataset),
        'batch_size': loader.batch_sampler.batch_size,
        'processes': runner.world_size,
        'epoch_length': len(loader),
    }


def _compare(runner: Runner, meta: dict[str, Any]) -> None:
    """Compare settings and data with the checkpoint's, if it has any: say what is new, refuse what is not followed."""
    settings, facts, seed = _settings(runner), _data_facts(runner), run_seed(runner)
    data = {**facts, **meta.get('data', {})}
    is_within_epoch = data.pop('batches_done', 0) > 0
    now = {**settings, 'randomness.seed': seed, **facts}
    then = {**meta.get('settings', settings), 'randomness.seed': meta.get('seed', seed), **data}
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    keys = [key for key in keys if key in facts or key.rpartition('.')[2] not in _NO_MATTER]
    changes = {key: f'\n  {key}: {then.get(key, ABSENT)} → {now.get(key, ABSENT)}' for key in keys}
    refused = [change for key, change in changes.items() if key.startswith((*_FROM_CHECKPOINT, 'randomness.seed'))]
    if is_within_epoch:
        refused += [change for key, change in changes.items() if key in facts]
    if refused:
        raise InputError(
            'This run cannot be resumed with another optimizer, schedule or seed, nor in the middle of an epoch with '
            f'other data (in {runner._load_from}):{"".join(refused)}\nResume with the former settings, or start afresh '
            f'from its weights, without --resume: --cfg-options load_from={runner._load_from}'
        )
    if changes:
        said = f'resumed with other settings, which hold from here on:{"".join(changes.values())}'
        print_log(said, 'current', WARNING)


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
