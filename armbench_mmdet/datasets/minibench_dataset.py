"""Minibench: procedural totes in ARMBench's folder shape, made on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS

from armbench_mmdet.datasets.armbench import ArmbenchDataset
from armbench_mmdet.datasets.data_list import AnnotatedImages

MINIBENCH_ROOT = Path('data/minibench')


@DATASETS.register_module()
class MinibenchDataset(ArmbenchDataset):
    """An :class:`ArmbenchDataset` that renders its images when its folder is not there yet.

    Args:
        data_root: Folder of the subsets; ``data/minibench`` by default.
        train_images: How many training pictures to render, if not the default 400.
        **kwargs: As for :class:`ArmbenchDataset`.
    """

    def __init__(self, train_images: int | None = None, **kwargs: Any) -> None:
        self.train_images = train_images
        super().__init__(**kwargs)

    def locate_root(self, data_root: str | Path | None) -> Path:
        """The folder given, else ``data/minibench``."""
        return Path(data_root or MINIBENCH_ROOT).expanduser()

    def load_data_list(self) -> AnnotatedImages:
        """Make the data if need be, then load them."""
        from armbench_mmdet.datasets.minibench import ensure_minibench

        ensure_minibench(Path(self.data_root), self.train_images)
        return super().load_data_list()
