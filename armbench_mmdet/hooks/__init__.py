"""Hooks of a run, registered by name; ``configs/_base_/default_runtime.py`` lists them."""

from armbench_mmdet.hooks.checkpoint import AtomicCheckpointHook, InterruptionHook
from armbench_mmdet.hooks.losses import LossGuardHook, ValidationLossHook
from armbench_mmdet.hooks.prediction_pictures import PicturesHook
from armbench_mmdet.hooks.preflight import MetricSelfTestHook, PretrainedReportHook
from armbench_mmdet.hooks.progress import ProgressHook
from armbench_mmdet.hooks.resume import BufferBroadcastHook, ResumeHook, SeedingHook
from armbench_mmdet.hooks.run_record import RunRecordHook
from armbench_mmdet.hooks.speed import SpeedHook

__all__ = [
    'AtomicCheckpointHook',
    'BufferBroadcastHook',
    'InterruptionHook',
    'LossGuardHook',
    'MetricSelfTestHook',
    'PicturesHook',
    'PretrainedReportHook',
    'ProgressHook',
    'ResumeHook',
    'RunRecordHook',
    'SeedingHook',
    'SpeedHook',
    'ValidationLossHook',
]
