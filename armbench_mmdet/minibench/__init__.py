"""Minibench: procedural totes in ARMBench's folder shape."""

from armbench_mmdet.minibench.scene import SUBSETS
from armbench_mmdet.minibench.writer import DEFAULT_COUNTS, SPLITS, ensure_minibench, make_minibench

__all__ = ['DEFAULT_COUNTS', 'SPLITS', 'SUBSETS', 'ensure_minibench', 'make_minibench']
