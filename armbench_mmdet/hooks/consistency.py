"""Random numbers and batch-norm statistics that all processes of a run, and a resumed one, share."""

from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner

from armbench_mmdet.engine.loops import TRAINING, VALIDATION, run_seed, seed_generators


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
