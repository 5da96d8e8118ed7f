"""Polygon-first loading and the custom augmentations; importing it registers them with mmdet."""

from armbench_mmdet.transforms import augmentations, corruption, loading

__all__ = ['augmentations', 'corruption', 'loading']
