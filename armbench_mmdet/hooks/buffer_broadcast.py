"""One set of batch-norm statistics for all processes of a run."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner


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
