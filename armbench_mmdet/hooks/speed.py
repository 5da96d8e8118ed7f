"""Time, memory and arithmetic of an evaluation, per image."""

import time
from collections import defaultdict
from contextlib import ExitStack
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from torch.utils.flop_counter import FlopCounterMode


@HOOKS.register_module()
class SpeedHook(Hook):
    """Times every batch in three stages, counts the arithmetic of a test's first, and tells the metric.

    ``load`` is the wait for the batch; ``forward`` preprocessing, the network and its proposals; ``post-process`` what
    makes instances of its output, with the encoding of masks. A batch's time is shared equally among its images.

    Args:
        warmup: Batches at the start that are not timed: kernels are chosen and compiled there.
    """

    def __init__(self, warmup: int = 3) -> None:
        self.warmup = warmup
        self._spent_s: defaultdict[str, float] = defaultdict(float)
        self._start_s = self._end_s = 0.0
        self._watched: list[tuple[Any, str]] = []
        self._flops: Any = None

    def _before_epoch(self, runner: Any, mode: str = 'train') -> None:
        """Start to watch the model, and in a test a new peak of GPU memory."""
        if mode == 'train':
            return
        if mode == 'test' and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._flops = FlopCounterMode(display=False)
        self._time(runner.model, f'{mode}_step')
        for name, module in runner.model.named_modules():
            if name.endswith('panoptic_fusion_head'):
                self._time(module, 'predict')
            elif hasattr(module, 'predict_by_feat') and not name.endswith('rpn_head'):
                self._time(module, 'predict_by_feat')
        self._end_s = _now_s()

    def _time(self, owner: Any, method: str) -> None:
        """Add up the time of a method under its name, and count what the first step of a test computes."""
        plain = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start_s = _now_s()
            with ExitStack() as counting:
                if method == 'test_step' and not self._flops.get_total_flops():
                    # What compiles its first call under the counter, torch never compiles again.
                    counting.enter_context(torch.compiler.set_stance('force_eager'))
                    counting.enter_context(self._flops)
                result = plain(*args, **kwargs)
            self._spent_s[method] += _now_s() - start_s
            return result

        setattr(owner, method, timed)
        self._watched.append((owner, method))

    def _before_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        """Start the clock."""
        if mode != 'train':
            self._start_s = _now_s()
            self._spent_s.clear()

    def _after_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Stop the clock and hand the times to the metric, with a test's first batch what was counted."""
        if mode == 'train' or not outputs:
            return
        load_s, self._end_s = self._start_s - self._end_s, _now_s()
        forward_s = self._spent_s[f'{mode}_step'] - self._spent_s['predict'] - self._spent_s['predict_by_feat']
        rest_s = self._end_s - self._start_s - forward_s
        stages_s = {'load': load_s, 'forward': forward_s, 'post-process': rest_s}
        for metric in getattr(runner, f'{mode}_loop').evaluator.metrics:
            if batch_idx >= self.warmup and hasattr(metric, 'add_timing'):
                metric.add_timing({name: seconds / len(outputs) for name, seconds in stages_s.items()}, len(outputs))
            if batch_idx == 0 and mode == 'test':
                parameters = sum(one.numel() for one in runner.model.parameters())
                gflops = self._flops.get_total_flops() / len(outputs) / 1e9
                metric.complexity = {'parameters': parameters, 'gflops': gflops}

    def _after_epoch(self, runner: Any, mode: str = 'train') -> None:
        """Leave the model as it was."""
        for owner, method in self._watched:
            delattr(owner, method)
        self._watched.clear()


def _now_s() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
