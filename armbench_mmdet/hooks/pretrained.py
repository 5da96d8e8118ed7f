"""Fine-tuning from a checkpoint without guessing: what was taken from it, what starts afresh, and why."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from armbench_mmdet.engine.checkpoints import compare_weights, described
from armbench_mmdet.errors import InputError


@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Prints what ``load_from`` gives the model, and stops if it is not what fine-tuning should give.

    For another number of classes the class head starts afresh: tensors of a module with ``num_classes`` that have a
    row (or four: box coordinates) for each class, perhaps one more for the background, and else the checkpoint's
    shape. Anything else that is missing, left over or of another shape is an error. A run that resumes must find every
    tensor. Without ``load_from`` the hook does nothing.

    Args:
        allow: Regular expressions of tensors that may differ all the same, searched for in their names.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = [re.compile(pattern) for pattern in ([allow] if isinstance(allow, str) else allow)]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint with the model before mmengine copies what fits.

        Raises:
            InputError: Tensors differ that must not; the message names them and the way to allow them.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state, ours = checkpoint.get('state_dict', checkpoint), model.state_dict()
        state = {name.removeprefix('module.'): value for name, value in state.items()}
        differences = {
            name: what
            for name, what in compare_weights(state, ours).items()
            # Checkpoints from before PyTorch 0.4.1 lack these, which do not change what a frozen model computes.
            if name in state or not name.endswith('num_batches_tracked')
        }
        source, rows, refused = runner._load_from or 'the latest checkpoint', [], {}
        for name, what in differences.items():
            if not runner._resume and '≠' in what and _has_class_rows(model, name, state[name].shape, ours[name].shape):
                rows.append(f'  starts afresh     {name} {what}, one row a class')
            elif any(pattern.search(name) for pattern in self.allow):
                rows.append(f'  differs, allowed  {name} {what}')
            else:
                refused[name] = what
        if refused:
            pattern = '^' + re.escape(next(iter(refused))) + '$'
            remedy = (
                'Resume with the config the run was started with.'
                if runner._resume
                else 'If that is wanted, set default_hooks.pretrained.allow='
                f'[{pattern!r}{", …" if len(refused) > 1 else ""}] (patterns of their names).'
            )
            raise InputError(f'The checkpoint does not fit the model: {described(refused)} (in {source}). {remedy}')
        if not runner._resume:
            loaded = sum(name in state and name not in differences for name in ours)
            runner.logger.info('\n'.join([f'weights from {source}', f'  loaded            {loaded} tensors', *rows]))


def _has_class_rows(model: nn.Module, name: str, theirs: torch.Size, ours: torch.Size) -> bool:
    """Whether a tensor has a row for every class of the model, and as its other sizes those of the checkpoint."""
    path = name.split('.')[:-1]
    inside_out = (model.get_submodule('.'.join(path[:depth])) for depth in range(len(path), 0, -1))
    counts = (getattr(module, 'num_classes', None) for module in inside_out)
    classes = next((count for count in counts if isinstance(count, int)), None)
    if classes is None or len(theirs) != len(ours) or not ours:
        return False
    return ours[0] in (classes, classes + 1, 4 * classes, 4 * classes + 1) and theirs[1:] == ours[1:]
