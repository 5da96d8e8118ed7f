"""Running: the runner and its console, loops, checkpoints, processes, failures."""

from armbench_mmdet.engine.loops import ResumableEpochLoop, ResumableIterLoop
from armbench_mmdet.engine.runner import ArmbenchRunner

__all__ = ['ArmbenchRunner', 'ResumableEpochLoop', 'ResumableIterLoop']
