"""The metric, the result file, run-length masks and everything else that turns predictions into numbers."""

from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.selftest import MetricSelfTestHook
from armbench_mmdet.evaluation.speed import SpeedHook

__all__ = ['ArmbenchMetric', 'MetricSelfTestHook', 'SpeedHook']
