"""A detector for images, and its predictions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset

from armbench_mmdet.configs import load_config
from armbench_mmdet.datasets.images import FoundImages, Inputs, find_images, image_size, read_bytes
from armbench_mmdet.engine.checkpoints import find_checkpoint, load_exactly
from armbench_mmdet.engine.levers import use_levers
from armbench_mmdet.errors import InputError, UnreadableImageError
from armbench_mmdet.evaluation.predictions import checked_prediction
from armbench_mmdet.transforms.geometry import TooNarrowError
from armbench_runtime import Prediction

Report = Callable[[str, str], None]


class Detector:
    """A model with its weights and the test pipeline of its config: what ``tools/test.py`` would evaluate.

    Args:
        config: The config file, or a loaded config.
        checkpoint: The checkpoint file, or a run folder (its latest checkpoint).
        device: ``cpu``, ``cuda``, ``cuda:1``; by default the GPU if there is one.
        trust_checkpoint: Load a file that holds more than tensors and plain data, and may run its code.

    Attributes:
        classes: Names of the labels.

    Raises:
        InputError: The config does not load, the checkpoint does not fit it, or there is no such device.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        self.config = config if isinstance(config, Config) else load_config(config)
        self.checkpoint = find_checkpoint(checkpoint)
        self.device = checked_device(device)
        init_default_scope(self.config.get('default_scope', 'mmdet'))
        dataset = self.config.test_dataloader.dataset
        self.classes = tuple({**DATASETS.get(dataset.type).METAINFO, **dataset.get('metainfo', {})}['classes'])
        self._pipeline = Compose(dataset.pipeline)
        self.model = MODELS.build(self.config.model)
        load_exactly(self.model, self.checkpoint, str(self.config.filename), trust_checkpoint)
        use_levers(self.model, self.config.get('levers', {}))
        self.model.to(self.device).eval()

    def predict(
        self, images: Inputs | FoundImages, batch_size: int | None = None, report: Report | None = None
    ) -> Iterator[Prediction]:
        """Predict images, one prediction for each that can be read, in order.

        Args:
            images: Files, folders and patterns, or what :func:`~armbench_mmdet.datasets.images.find_images` found.
            batch_size: By default the config's for testing. The images of a batch are padded to one size, which
                can move the predictions of images of different sizes by a little.
            report: Called with an image's path and the reason when it cannot be read and is left out; by default it
                is logged as a warning.

        Raises:
            InputError: There is no image file at all.
        """
        size = self.config.test_dataloader.get('batch_size', 1) if batch_size is None else batch_size
        if size < 1:
            raise InputError(f'batch_size must be at least 1, got {size!r}')
        found = images if isinstance(images, FoundImages) else find_images(images)
        report = report or _warn
        for name, reason in found.left_out.items():
            report(name, reason)
        workers = min(self.config.test_dataloader.get('num_workers', 0), -(-len(found.paths) // size) - 1)
        records = _Records(found, self._pipeline)
        loader = DataLoader(records, size, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread_each)
        return self._predict(loader, report)

    def preprocessed(self, path: Path) -> torch.Tensor:
        """What the network sees of an image file alone, ``(3, H, W) float32``."""
        packed = _Records(FoundImages([path], [1]), self._pipeline)[0]
        if isinstance(packed, tuple):
            raise UnreadableImageError(f'image must be readable, got {packed[1]} (in {path})')
        data = {key: [packed[key]] for key in ('inputs', 'data_samples')}
        return self.model.data_preprocessor(data)['inputs'][0]

    @torch.no_grad()
    def _predict(self, loader: DataLoader, report: Report) -> Iterator[Prediction]:
        is_mixed = bool(self.config.get('test_cfg', {}).get('fp16', False))
        for batch in loader:
            for path, reason in (entry for entry in batch if isinstance(entry, tuple)):
                report(path, reason)
            packed = [entry for entry in batch if isinstance(entry, dict)]
            if not packed:
                continue
            data = {key: [one[key] for one in packed] for key in ('inputs', 'data_samples')}
            with torch.autocast(self.device.type, enabled=is_mixed):
                samples = self.model.test_step(data)
            for record, sample in zip((one['record'] for one in packed), samples, strict=True):
                size = record['height'], record['width']
                about = {'img_id': record['img_id'], 'ori_shape': size}
                one = checked_prediction({**sample.to_dict(), **about}, len(self.classes), with_masks=True)
                arrays = (one['bboxes'], one['scores'], one['labels'], one['masks'])
                yield Prediction(record['img_id'], Path(record['img_path']), *size, *arrays, classes=self.classes)


class _Records(Dataset):
    """Images through the pipeline: what the model takes, or the path and the reason why there is nothing."""

    def __init__(self, found: FoundImages, pipeline: Compose) -> None:
        self._paths, self._ids = found.paths, found.ids
        self._pipeline = pipeline

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any] | tuple[str, str]:
        path = self._paths[index]
        try:
            height, width = image_size(read_bytes(path), path)
            # As a data set without annotations would have it.
            record = {'img_id': self._ids[index], 'img_path': str(path), 'height': height, 'width': width}
            return {**self._pipeline({**record, 'seg_map_path': None, 'instances': []}), 'record': record}
        except (UnreadableImageError, TooNarrowError) as error:
            return str(path), str(error).removesuffix(f' (in {path})')


def checked_device(device: str | None) -> torch.device:
    """The device of that name; None stands for the GPU if there is one, else the CPU.

    Raises:
        InputError: There is no such device.
    """
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f'device must be there, got {device!r} with {torch.cuda.device_count()} GPUs')
    return chosen


def _one_thread_each(worker: int) -> None:
    cv2.setNumThreads(0)


def _warn(path: str, reason: str) -> None:
    print_log(f'{path} is left out: {reason}', 'current', logging.WARNING)
