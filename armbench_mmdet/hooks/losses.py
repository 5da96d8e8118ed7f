"""Losses: those of training guarded against NaN, those of the validation data logged."""

import logging
import math
from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from armbench_mmdet.engine.distributed import total
from armbench_mmdet.engine.failure import RunError, image_lines
from armbench_mmdet.errors import InputError
from armbench_mmdet.run_folder import VALIDATION_LOSS_PREFIX

_REMEDY = (
    ', with the weights from before this step. Lower the learning rate, set optim_wrapper.clip_grad, or look at these '
    'images (tools/browse_data.py). To leave such steps out instead: --cfg-options '
    'default_hooks.loss_guard.on_bad_loss=skip'
)


@HOOKS.register_module()
class LossGuardHook(Hook):
    """Looks at the loss before its gradient is computed, and leaves out the step if it is NaN or infinite.

    The guard stands around the optimizer wrapper's ``update_params``, so weights, optimizer and loss scaler are as they
    were before such a step; with gradient accumulation the gradient gathered since the last step is dropped. Under
    mixed precision the loss scaler deals with gradients that overflow. If one of several processes has such a loss, all
    leave out the step.

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
        wrapper: Any = runner.optim_wrapper
        update = wrapper.update_params

        def guarded(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            self._is_bad = not bool(torch.isfinite(total(loss.detach())))
            if self._is_bad:
                wrapper._inner_count += 1  # of iterations; mmengine has no public way to count one without a step
                wrapper.zero_grad()
            else:
                update(loss, *args, **kwargs)

        wrapper.update_params = guarded

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """After a step that was left out: end the run or say so, and keep its losses out of the log.

        Raises:
            RunError: The run must end.
        """
        if not self._is_bad:
            return
        self._is_bad = False
        self.skipped += 1
        losses = {name: float(torch.as_tensor(value).detach()) for name, value in (outputs or {}).items()}
        where = ' in another process' if all(map(math.isfinite, losses.values())) else ''
        got = ', '.join(f'{name} {value:.4g}' for name, value in losses.items())
        lines = [f'The loss is not finite at iteration {runner.iter + 1}{where}: {got}', *image_lines(data_batch)]
        if self.skipped > self.max_skipped:
            after = f' after {self.max_skipped} steps were left out' if self.max_skipped else ''
            raise RunError('nan', *lines, f'Stopped{after}{_REMEDY}')
        lines.append(f'This step is left out, {self.skipped} of at most {self.max_skipped}.')
        print_log('\n  '.join(lines), 'current', logging.WARNING)
        log = runner.message_hub.log_scalars
        for name in [f'train/{name}' for name in losses if f'train/{name}' in log]:
            values, counts = log.pop(name).data
            if len(values) > 1:
                log[name] = HistoryBuffer(values[:-1], counts[:-1])


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """Logs the losses of the validation data at every validation: ``val_loss/loss`` and its components.

    They are training's losses of the network as it is evaluated: dropout off, batch norm with its running statistics,
    averaged weights, no augmentation. Compare the shape of the two curves rather than their height.

    What the losses draw at random is drawn from one seed for every batch, and the random states are put back: training
    is the same with and without the hook, bit for bit. No image is read for it: it takes batches, evenly spaced, that
    are being validated anyway. Images without instances do not count. ``save_best`` or early stopping may use
    ``val_loss/loss``.

    Args:
        max_images: How many images at most, of all processes together (rounded up to whole batches); None for all.
    """

    def __init__(self, max_images: int | None = 200) -> None:
        self.max_images = max_images

    def before_train(self, runner: Runner) -> None:
        """Look at the annotations of one validation image now, rather than after the first epoch.

        Raises:
            InputError: They are not loaded, or are not resized with the image.
        """
        if runner.val_loop is None:
            return
        sample = runner.val_dataloader.dataset[0]['data_samples']
        masks = sample.gt_instances.get('masks')
        if masks is None or (masks.height, masks.width) != tuple(sample.img_shape[:2]):
            raise InputError(
                'val_dataloader.dataset.pipeline must load annotations, before it resizes, for the validation losses '
                f'(in {sample.get("img_path")}); put LoadPolygons first, or go without these losses: --cfg-options '
                'default_hooks.validation_loss.enabled=False'
            )

    def before_val_epoch(self, runner: Runner) -> None:
        """Choose the batches: the same ones in every process, since losses may wait for one another."""
        batches = min(all_gather_object(len(runner.val_dataloader)))
        a_batch = (runner.val_dataloader.batch_size or 1) * get_world_size()
        wanted = batches if self.max_images is None else min(batches, math.ceil(self.max_images / a_batch))
        self._chosen = [(2 * part + 1) * batches // (2 * wanted) for part in range(wanted)]  # middles of equal parts
        self._sums: Counter = Counter()

    @torch.no_grad()
    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Add the losses of a chosen batch, as ``train_step`` computes them but for batch augmentations."""
        if batch_idx not in self._chosen:
            return
        model: Any = getattr(runner.model, 'module', runner.model)
        wrapper: Any = runner.optim_wrapper
        precision = wrapper.optim_context(model) if isinstance(wrapper, OptimWrapper) else nullcontext()
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with precision, torch.random.fork_rng(devices):
            torch.manual_seed(0)
            data = model.data_preprocessor(data_batch, False)
            if model.data_preprocessor.pad_mask:
                model.data_preprocessor.pad_gt_masks(data['data_samples'])
            _, losses = model.parse_losses(model(**data, mode='loss'))
        images = sum(len(sample.gt_instances) > 0 for sample in data_batch['data_samples'])
        if images:
            own = {name: images * float(value) for name, value in losses.items() if 'loss' in name}
            self._sums.update(own, images=images)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the means over all processes in the row of the validation's metrics, and print them."""
        sums: Counter = Counter()
        for share in all_gather_object(self._sums):
            sums.update(share)
        images = sums.pop('images', 0)
        if not images:
            print_log('validation loss: none of the images chosen has an instance', 'current')
            return
        means = {name: value / images for name, value in sums.items()}
        for name, value in means.items():
            key = f'val/{VALIDATION_LOSS_PREFIX}{name}'
            runner.message_hub.log_scalars.pop(key, None)  # the logger averages all earlier losses into this one
            runner.message_hub.update_scalar(key, value)
            if metrics is not None:
                metrics[VALIDATION_LOSS_PREFIX + name] = value
        # the losses of earlier decoder layers (d0.loss_cls, …) are in the total and the log only
        parts = [f'{name.removeprefix("loss_")} {value:.3f}' for name, value in means.items() if '.' not in name]
        print_log(f'validation {parts[0]} on {images} images: {", ".join(parts[1:])}', 'current')
