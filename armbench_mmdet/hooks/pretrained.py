"""Fine-tuning from a checkpoint without guessing: what was taken from it, what starts afresh, and why."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from armbench_mmdet.engine.checkpoints import WeightComparison, compare_weights
from armbench_mmdet.errors import InputError

_PER_CLASS = (1, 4)
"""Rows a head has for each class: one score or mask, or four box coordinates."""
_EXTRA_ROWS = (0, 1)
"""Rows for no class: the background's score, or none."""


@dataclass
class LoadingPlan:
    """What a checkpoint does for a model.

    Attributes:
        loaded: Number of tensors taken from the checkpoint.
        class_head: Tensors that start afresh, having a row for every class: their shape and ours.
        allowed: Further tensors that differ as the user has allowed, and how they do.
        refused: The tensors that differ and must not.
    """

    loaded: int = 0
    class_head: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    allowed: dict[str, str] = field(default_factory=dict)
    refused: WeightComparison = field(default_factory=WeightComparison)

    def table(self, source: str) -> str:
        """The plan as a few lines of text."""
        rows = [('loaded', f'{self.loaded} tensors', '')]
        for name, (theirs, ours) in self.class_head.items():
            rows.append(('starts afresh', name, f'{_shape(theirs)} → {_shape(ours)}, one row a class'))
        rows += [('differs, allowed', name, why) for name, why in self.allowed.items()]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f'  {state:{widths[0]}}  {name:{widths[1]}}  {why}'.rstrip() for state, name, why in rows]
        return '\n'.join([f'weights from {source}', *lines])


def plan_loading(
    checkpoint: Mapping[str, Tensor], model: nn.Module, allow: Sequence[str | re.Pattern[str]] = ()
) -> LoadingPlan:
    """Decide for every tensor of a checkpoint and of a model whether it may be loaded or start afresh.

    A tensor may start afresh without being allowed when its part of the model has ``num_classes`` and its shape
    differs from the checkpoint's in the first size only, as it must for another number of classes: with n classes a
    head has n, n + 1, 4 n or 4 n + 1 rows. All such tensors must agree on the checkpoint's number of classes.

    Args:
        checkpoint: Its state dict.
        model: The built model.
        allow: Regular expressions, searched for in tensor names, of differences that are wanted.
    """
    comparison = compare_weights(checkpoint, model.state_dict())
    plan = LoadingPlan(loaded=len(comparison.matched))
    candidates = {
        name: _other_class_counts(shapes, _class_count(model, name)) for name, shapes in comparison.mismatched.items()
    }
    shared = [counts for counts in candidates.values() if counts]
    common = set.intersection(*shared) if shared else set()

    def is_allowed(name: str, what: str) -> bool:
        if is_it := any(re.search(pattern, name) for pattern in allow):
            plan.allowed[name] = what
        return is_it

    for name, (theirs, ours) in comparison.mismatched.items():
        if candidates[name] & common:
            plan.class_head[name] = (theirs, ours)
        elif not is_allowed(name, f'{_shape(theirs)} in the checkpoint, {_shape(ours)} here'):
            plan.refused.mismatched[name] = (theirs, ours)
    # Checkpoints from before PyTorch 0.4.1 lack these counters, which do not change what a frozen model computes.
    missing = [name for name in comparison.missing if not name.endswith('num_batches_tracked')]
    plan.refused.missing = [name for name in missing if not is_allowed(name, 'not in the checkpoint')]
    plan.refused.unexpected = [name for name in comparison.unexpected if not is_allowed(name, 'not in the model')]
    return plan


def _class_count(model: nn.Module, tensor_name: str) -> int | None:
    """``num_classes`` of the innermost module around a tensor that has it."""
    path = tensor_name.split('.')[:-1]
    for depth in range(len(path), 0, -1):
        count = getattr(model.get_submodule('.'.join(path[:depth])), 'num_classes', None)
        if isinstance(count, int):
            return count
    return None


def _other_class_counts(shapes: tuple[tuple[int, ...], tuple[int, ...]], our_classes: int | None) -> set[int]:
    """The numbers of classes for which a head like ours would have their shape."""
    theirs, ours = shapes
    if our_classes is None or len(theirs) != len(ours) or not ours or theirs[1:] != ours[1:]:
        return set()
    return {
        (theirs[0] - extra) // per_class
        for per_class in _PER_CLASS
        for extra in _EXTRA_ROWS
        if ours[0] == per_class * our_classes + extra and (theirs[0] - extra) % per_class == 0
    }


def _shape(shape: tuple[int, ...]) -> str:
    return '×'.join(map(str, shape)) or 'scalar'


@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Prints what ``load_from`` gives the model, and stops if it is not what fine-tuning should give.

    For another number of classes the class head starts afresh; anything else that is missing, left over or of another
    shape is an error. A run that resumes must find every tensor. Without ``load_from`` the hook does nothing.

    Args:
        allow: Regular expressions of tensors that may differ all the same, searched for in their names.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow: Sequence[str] = ()) -> None:
        try:
            self.allow = [re.compile(pattern) for pattern in ([allow] if isinstance(allow, str) else allow)]
        except re.error as error:
            raise InputError(f'allow must hold regular expressions, got {allow!r}: {error}') from error

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint with the model before mmengine copies what fits.

        Raises:
            InputError: Tensors differ that must not; the message names them and the way to allow them.
        """
        state = checkpoint.get('state_dict', checkpoint)
        state = {name.removeprefix('module.'): value for name, value in state.items()}
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        plan = plan_loading(state, model, self.allow)
        source = runner._load_from or 'the latest checkpoint'
        if runner._resume:
            plan.refused.mismatched |= plan.class_head
        elif plan.refused.is_exact:
            runner.logger.info(plan.table(source))
        if not plan.refused.is_exact:
            remedy = 'Resume with the config the run was started with.' if runner._resume else self._remedy(plan)
            raise InputError(
                f'The checkpoint does not fit the model: {plan.refused.describe()} (in {source}). {remedy}'
            )

    @staticmethod
    def _remedy(plan: LoadingPlan) -> str:
        names = [*plan.refused.missing, *plan.refused.unexpected, *plan.refused.mismatched]
        pattern = '^' + re.escape(names[0]) + '$'
        more = '' if len(names) == 1 else ', …'
        return f'If that is wanted, set default_hooks.pretrained.allow=[{pattern!r}{more}] (patterns of their names).'
