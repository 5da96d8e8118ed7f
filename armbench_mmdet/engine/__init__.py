"""Running: the runner and its console, hooks, weights, and the preparation of configs."""

from armbench_mmdet.engine.batch import CurrentBatchHook
from armbench_mmdet.engine.buffers import BufferBroadcastHook
from armbench_mmdet.engine.checkpoint import AtomicCheckpointHook
from armbench_mmdet.engine.gradient_norm import GradientNormHook
from armbench_mmdet.engine.interruption import InterruptionHook
from armbench_mmdet.engine.loops import ResumableEpochLoop, ResumableIterLoop
from armbench_mmdet.engine.loss_guard import LossGuardHook
from armbench_mmdet.engine.pretrained import PretrainedReportHook
from armbench_mmdet.engine.progress import ProgressHook
from armbench_mmdet.engine.record import RunRecordHook
from armbench_mmdet.engine.resume import ResumeHook
from armbench_mmdet.engine.runner import ArmbenchRunner
from armbench_mmdet.engine.seeding import SeedingHook
from armbench_mmdet.engine.validation_loss import ValidationLossHook

__all__ = [
    'ArmbenchRunner',
    'AtomicCheckpointHook',
    'BufferBroadcastHook',
    'CurrentBatchHook',
    'GradientNormHook',
    'InterruptionHook',
    'LossGuardHook',
    'PretrainedReportHook',
    'ProgressHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'ResumeHook',
    'RunRecordHook',
    'SeedingHook',
    'ValidationLossHook',
]
