"""Hooks of a run, registered by name; ``configs/_base_/default_runtime.py`` lists them."""

from armbench_mmdet.hooks.checkpoint import AtomicCheckpointHook
from armbench_mmdet.hooks.consistency import BufferBroadcastHook, SeedingHook
from armbench_mmdet.hooks.interruption import InterruptionHook
from armbench_mmdet.hooks.loss_guard import LossGuardHook
from armbench_mmdet.hooks.prediction_pictures import PicturesHook
from armbench_mmdet.hooks.pretrained import PretrainedReportHook
from armbench_mmdet.hooks.progress import ProgressHook
from armbench_mmdet.hooks.resume import ResumeHook
from armbench_mmdet.hooks.run_record import RunRecordHook
from armbench_mmdet.hooks.self_test import MetricSelfTestHook
from armbench_mmdet.hooks.speed import SpeedHook
from armbench_mmdet.hooks.validation_loss import ValidationLossHook

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
