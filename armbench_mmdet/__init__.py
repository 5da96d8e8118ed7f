"""Instance segmentation for robotic picking: ARMBench on MMDetection.

Importing the package provides mmcv's operators where its compiled extension is missing, and registers
the data sets, transforms, metrics and hooks of this project with mmdet. Import it before ``mmdet``.
"""

from armbench_mmdet import ops  # isort: skip  # before anything that imports mmcv.ops

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):  # mmdet prints, twice, that an optional package is not there
    import mmdet.datasets  # noqa: F401

from armbench_mmdet import datasets, engine, evaluation, hooks, models, transforms

__version__ = '0.1.0'
__all__ = ['datasets', 'engine', 'evaluation', 'hooks', 'models', 'ops', 'transforms']
