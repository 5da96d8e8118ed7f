"""Running: the runner and its console, loops, checkpoints, processes, failures."""

from armbench_mmdet.engine.failure import CurrentBatchHook
from armbench_mmdet.engine.loops import ResumableEpochLoop, ResumableIterLoop
from armbench_mmdet.engine.runner import ArmbenchRunner

__all__ = ['ArmbenchRunner', 'CurrentBatchHook', 'ResumableEpochLoop', 'ResumableIterLoop']
