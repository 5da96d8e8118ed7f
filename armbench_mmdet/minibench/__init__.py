"""Minibench: procedural totes in ARMBench's folder shape."""

from armbench_mmdet.minibench.outlines import mask_polygons, scene_annotations
from armbench_mmdet.minibench.scene import SUBSETS, Scene, SceneObject, render_scene
from armbench_mmdet.minibench.writer import DEFAULT_COUNTS, SPLITS, ensure_minibench, make_minibench

__all__ = [
    'DEFAULT_COUNTS',
    'SPLITS',
    'SUBSETS',
    'Scene',
    'SceneObject',
    'ensure_minibench',
    'make_minibench',
    'mask_polygons',
    'render_scene',
    'scene_annotations',
]
