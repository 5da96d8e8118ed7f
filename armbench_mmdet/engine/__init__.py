"""Running: the runner and its console, hooks, weights, and the preparation of configs."""

from armbench_mmdet.engine.pretrained import PretrainedReportHook
from armbench_mmdet.engine.progress import ProgressHook
from armbench_mmdet.engine.runner import ArmbenchRunner

__all__ = ['ArmbenchRunner', 'PretrainedReportHook', 'ProgressHook']
