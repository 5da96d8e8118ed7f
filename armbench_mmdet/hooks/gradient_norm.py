"""The norm of the gradient in the log, clipped or not."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn


@HOOKS.register_module()
class GradientNormHook(Hook):
    """Has ``grad_norm`` logged where the config clips no gradients; where it does, mmengine logs it.

    Gradients stay as they are. Under mixed precision the norm is of the unscaled gradients, infinite at a step that
    the loss scaler leaves out.
    """

    def before_train(self, runner: Runner) -> None:
        """Put a function that only measures in the place of clipping."""
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper) and not wrapper.clip_grad_kwargs:
            wrapper.clip_func, wrapper.grad_name = gradient_norm, 'grad_norm'
            wrapper.clip_grad_kwargs = {'norm_type': 2.0}


def gradient_norm(parameters: Sequence[nn.Parameter], norm_type: float = 2.0) -> Tensor:
    """The norm of all gradients together, a scalar."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], norm_type)
