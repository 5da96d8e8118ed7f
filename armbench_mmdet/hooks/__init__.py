"""Hooks of a run, registered by name; ``configs/_base_/default_runtime.py`` lists them."""

from armbench_mmdet.hooks import checkpoint, losses, prediction_pictures, preflight, progress, resume, run_record, speed

__all__ = ['checkpoint', 'losses', 'prediction_pictures', 'preflight', 'progress', 'resume', 'run_record', 'speed']
