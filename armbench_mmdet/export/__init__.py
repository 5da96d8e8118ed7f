"""Trained models as ONNX files that say what the trained model says.

:func:`export` writes one and compares it with the model; :mod:`armbench_runtime` runs it without torch.
"""

from armbench_mmdet.export.parity import export

__all__ = ['export']
