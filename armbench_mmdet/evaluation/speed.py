"""How long an image takes and how much memory the process needs, measured during the evaluation itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from armbench_mmdet.evaluation.strata import DENSITY_NAMES

try:
    import resource
except ImportError:  # not on every system; the peak is then unknown
    resource = None  # type: ignore[assignment]

BYTES_PER_MB = 2**20


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

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Stop the clock and hand the time to the metric."""
        _wait_for_device()
        seconds = time.perf_counter() - self._start_s
        if batch_idx < self.warmup or not outputs:
            return
        for metric in runner.test_loop.evaluator.metrics:
            if hasattr(metric, 'add_timing'):
                metric.add_timing(seconds / len(outputs), len(outputs))


def speed_summary(predictions: Sequence[Mapping[str, Any]], density: Mapping[int, str | None]) -> dict[str, Any] | None:
    """The result file's ``speed``, or None if nothing was timed.

    Args:
        predictions: With ``img_id`` and, where timed, ``seconds``.
        density: The density bin of each image.
    """
    times_ms = {p['img_id']: 1000 * p['seconds'] for p in predictions if 'seconds' in p}
    if not times_ms:
        return None
    by_density = defaultdict(list)
    for image_id, time_ms in times_ms.items():
        by_density[density.get(image_id)].append(time_ms)
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    return {
        **_median_and_p95(list(times_ms.values())),
        'images': len(times_ms),
        'per_density': {name: _median_and_p95(by_density[name]) for name in DENSITY_NAMES if name in by_density},
        'peak_memory_mb': peak_memory_mb(),
        'peak_gpu_memory_mb': torch.cuda.max_memory_allocated() / BYTES_PER_MB if on_gpu else None,
        'device': torch.cuda.get_device_name() if on_gpu else 'cpu',
    }


def peak_memory_mb() -> float | None:
    """The process's largest resident memory so far, or None where the system does not say."""
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def _median_and_p95(times_ms: list[float]) -> dict[str, float]:
    return {'median_ms': float(np.median(times_ms)), 'p95_ms': float(np.percentile(times_ms, 95))}


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
