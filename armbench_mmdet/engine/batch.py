"""The batch that is being worked on, told to people: image files, sizes, numbers of instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


def image_lines(batch: Any) -> list[str]:
    """One line for each image of a batch: ``file (width×height, instances)``, as far as its samples tell.

    Args:
        batch: As mmdet's data loaders give it: a dict with ``data_samples``.
    """
    samples = batch.get('data_samples', ()) if isinstance(batch, Mapping) else ()
    return [_image_line(sample) for sample in samples or ()]


def _image_line(sample: Any) -> str:
    facts = []
    if 'img_shape' in sample:
        height, width = sample.img_shape[:2]
        facts.append(f'{width}×{height} px')
    if 'gt_instances' in sample:
        facts.append(f'{len(sample.gt_instances)} instances')
    return f'{sample.get("img_path", "an unnamed image")} ({", ".join(facts) or "nothing known"})'


@HOOKS.register_module()
class CurrentBatchHook(Hook):
    """Remembers the batch in work, for whoever must name it when it fails.

    Attributes:
        batch: The batch, None between batches.
        phase: ``train``, ``val`` or ``test``.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.batch: Any = None
        self.phase = 'train'

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        """Take note of the batch."""
        self.batch, self.phase = data_batch, mode

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        """Let go of it."""
        self.batch = None
