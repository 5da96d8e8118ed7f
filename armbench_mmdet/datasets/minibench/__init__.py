"""Minibench: procedural totes in ARMBench's folder shape, so that everything runs without the real data set."""

from armbench_mmdet.datasets.minibench.annotations import mask_polygons, scene_annotations
from armbench_mmdet.datasets.minibench.contact_sheet import write_contact_sheet
from armbench_mmdet.datasets.minibench.first_use import ensure_minibench
from armbench_mmdet.datasets.minibench.scene import SUBSETS, Scene, SceneObject, render_scene
from armbench_mmdet.datasets.minibench.writer import DEFAULT_COUNTS, SPLITS, make_minibench

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
    'write_contact_sheet',
]
