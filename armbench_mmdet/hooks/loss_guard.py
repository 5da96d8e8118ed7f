"""A loss that is NaN or infinite never reaches the weights."""

import logging
import math
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from armbench_mmdet.engine.distributed import total
from armbench_mmdet.engine.failure import RunError, image_lines
from armbench_mmdet.errors import InputError

_REMEDY = (
    ', with the weights from before this step. Lower the learning rate, set optim_wrapper.clip_grad, or look at these '
    'images (tools/browse_data.py). To leave such steps out instead: --cfg-options '
    'default_hooks.loss_guard.on_bad_loss=skip'
)


@HOOKS.register_module()
class LossGuardHook(Hook):
    """Looks at the loss before its gradient is computed, and leaves out the step if it is NaN or infinite.

    The guard stands around the optimizer wrapper's ``update_params``, so weights, optimizer and loss scaler are as
    they were before such a step. Only the loss counts: under mixed precision the loss scaler deals with gradients that
    overflow, as it must. If one of several processes has such a loss, all leave out the step. With gradient
    accumulation the gradient gathered since the last step is dropped with it.

    The look costs one number copied from the device each iteration, where mmengine copies every loss to log it.

    Args:
        on_bad_loss: ``stop`` ends the run; ``skip`` goes on without the step and logs a warning.
        max_skipped: With ``skip``, so many steps may be left out; one more ends the run.
    """

    priority = 'HIGH'  # once mmengine has noted the losses for the log, before anything shows them

    def __init__(self, on_bad_loss: str = 'stop', max_skipped: int = 10) -> None:
        if on_bad_loss not in ('stop', 'skip'):
            raise InputError(f"on_bad_loss must be 'stop' or 'skip', got {on_bad_loss!r}")
        self.max_skipped = max_skipped if on_bad_loss == 'skip' else 0
        self.skipped = 0
        self._is_bad = False

    def before_train(self, runner: Runner) -> None:
        """Stand around the optimizer wrapper."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):  # several optimizers: each model calls them as it likes
            return
        update = wrapper.update_params

        def guarded(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            self._is_bad = not bool(torch.isfinite(total(loss.detach())))
            if self._is_bad:
                wrapper._inner_count += 1  # of iterations; mmengine has no public way to count one without a step
                wrapper.zero_grad()
            else:
                update(loss, *args, **kwargs)

        wrapper.update_params = guarded

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer wrapper as it was."""
        vars(runner.optim_wrapper).pop('update_params', None)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """After a step that was left out: end the run or say so, and keep its losses out of the log.

        Raises:
            RunError: The run must end.
        """
        if not self._is_bad:
            return
        self._is_bad = False
        self.skipped += 1
        problem = _described(outputs or {}, runner.iter + 1, data_batch)
        if self.skipped > self.max_skipped:
            after = f' after {self.max_skipped} steps were left out' if self.max_skipped else ''
            raise RunError('nan', f'{problem}\n  Stopped{after}{_REMEDY}')
        left_out = f'{problem}\n  This step is left out, {self.skipped} of at most {self.max_skipped}.'
        print_log(left_out, 'current', logging.WARNING)
        log = runner.message_hub.log_scalars
        for name in [f'train/{name}' for name in outputs or {} if f'train/{name}' in log]:
            values, counts = log.pop(name).data
            if len(values) > 1:
                log[name] = HistoryBuffer(values[:-1], counts[:-1])


def _described(losses: dict[str, Any], iteration: int, batch: Any) -> str:
    """What is wrong with an iteration's losses, and the images it happened on."""
    values = {name: float(torch.as_tensor(value).detach()) for name, value in losses.items()}
    bad = [f'{name} {value}' for name, value in values.items() if not math.isfinite(value)]
    good = [f'{name} {value:.4g}' for name, value in values.items() if math.isfinite(value)]
    got = ', '.join(bad) or 'NaN or infinite in another process'
    lines = [f'The loss is not finite at iteration {iteration}: {got}.']
    if good:
        lines.append(f'Other losses: {", ".join(good)}')
    return '\n  '.join([*lines, *image_lines(batch)])
