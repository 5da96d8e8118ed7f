"""The metric, the result file and everything else that turns predictions into numbers."""

from armbench_mmdet.evaluation.metric import ArmbenchMetric

__all__ = ['ArmbenchMetric']
