"""Time and memory of an evaluation, per image."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook


@HOOKS.register_module()
class SpeedHook(Hook):
    """Times every batch from its arrival in memory to finished predictions, and tells the metric.

    Included are preprocessing, the network and post-processing with the encoding of masks; reading and decoding images
    is not. A batch's time is shared equally among its images.

    Args:
        warmup: Batches at the start that are not counted: kernels are chosen and compiled there.
    """

    def __init__(self, warmup: int = 3) -> None:
        self.warmup = warmup
        self._start_s = 0.0

    def before_test_epoch(self, runner: Any) -> None:
        """Start a new peak of GPU memory."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock."""
        _wait_for_device()
        self._start_s = time.perf_counter()

    before_val_iter = before_test_iter

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Stop the clock and hand the time to the metric."""
        self._stop(runner.test_loop, batch_idx, outputs)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Stop the clock and hand the time to the metric."""
        self._stop(runner.val_loop, batch_idx, outputs)

    def _stop(self, loop: Any, batch_idx: int, outputs: Sequence[Any] | None) -> None:
        _wait_for_device()
        seconds = time.perf_counter() - self._start_s
        if batch_idx < self.warmup or not outputs:
            return
        for metric in loop.evaluator.metrics:
            if hasattr(metric, 'add_timing'):
                metric.add_timing(seconds / len(outputs), len(outputs))


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
