"""Predictions on images of your own, ``Detector(config, checkpoint).predict(images)``, and what :func:`infer` writes.

- ``overlays/…jpg``: each image with its instances drawn on it, under its path below the folder that all images share.
- ``results.segm.json`` and ``results.bbox.json``: COCO results (``image_id``, ``category_id``, ``score`` and
  ``segmentation`` or ``bbox``) of the instances with at least the score threshold. An average precision needs them
  all: threshold 0.
- ``images.json``: what the ids mean, as a COCO file without annotations (``pycocotools.coco.COCO`` loads it, and its
  ``loadRes`` the results): ``images`` with ``id``, ``file_name`` as found, ``width``, ``height`` and ``overlay``;
  ``categories``; ``info`` with config, checkpoint and threshold; ``left_out`` with ``file_name`` and ``reason``.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from armbench_mmdet.configs import dataset_of, load_config
from armbench_mmdet.datasets.images import (
    FoundImages,
    Inputs,
    find_images,
    folder_of_images,
    image_size,
    read_bytes,
    read_image,
)
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.engine.checkpoints import find_checkpoint, load_exactly
from armbench_mmdet.engine.levers import use_levers
from armbench_mmdet.errors import InputError, UnreadableImageError
from armbench_mmdet.evaluation.metric import checked_prediction, shapes_of, write_coco_results
from armbench_mmdet.files import write_json
from armbench_mmdet.visualization import Instance, draw_overlay
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime import Prediction

Report = Callable[[str, str], None]
JPEG_QUALITY = 90


class Detector:
    """A model with its weights and the test pipeline of its config: what ``tools/test.py`` would evaluate.

    ``classes`` are the names of its labels.

    Args:
        config: The config file, or a loaded config.
        checkpoint: The checkpoint file, or a run folder (its latest checkpoint).
        device: ``cpu``, ``cuda``, ``cuda:1``; by default the GPU if there is one.
        trust_checkpoint: Load a file that holds more than tensors and plain data, and may run its code.

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
        self.device = _device(device)
        init_default_scope(self.config.get('default_scope', 'mmdet'))
        dataset = dataset_of(self.config, 'test_dataloader')
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
        report = report or (lambda path, reason: print_log(f'{path} is left out: {reason}', 'current', logging.WARNING))
        for name, reason in found.left_out.items():
            report(name, reason)
        workers = min(self.config.test_dataloader.get('num_workers', 0), -(-len(found.paths) // size) - 1)
        records = _Records(found, self._pipeline)
        loader = DataLoader(records, size, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread_each)
        return self._predict(loader, report)

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
            for sample in samples:
                one = checked_prediction(sample.to_dict(), len(self.classes), with_masks=True)
                arrays = (one['bboxes'], one['scores'], one['labels'], one['masks'])
                height, width = sample.ori_shape
                yield Prediction(one['img_id'], Path(sample.img_path), height, width, *arrays, classes=self.classes)


@dataclass
class _Records(Dataset):
    """Images through the pipeline: what the model takes, or the path and the reason why there is nothing."""

    found: FoundImages
    pipeline: Compose

    def __len__(self) -> int:
        return len(self.found.paths)

    def __getitem__(self, index: int) -> dict[str, Any] | tuple[str, str]:
        path = self.found.paths[index]
        try:
            height, width = image_size(read_bytes(path), path)
            # As a data set without annotations would have it.
            record = {'img_id': self.found.ids[index], 'img_path': str(path), 'height': height, 'width': width}
            return self.pipeline({**record, 'seg_map_path': None, 'instances': []})
        except UnreadableImageError as error:
            return str(path), str(error).removesuffix(f' (in {path})')


def _device(name: str | None) -> torch.device:
    """The device of that name; None stands for the GPU if there is one, else the CPU."""
    try:
        return torch.empty(0, device=name or ('cuda' if torch.cuda.is_available() else 'cpu')).device
    except (RuntimeError, AssertionError) as error:  # no such name; no such GPU, or a torch without any
        reason = str(error).splitlines()[0]
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N' and be there, got {name!r}: {reason}") from error


def _one_thread_each(worker: int) -> None:
    cv2.setNumThreads(0)


class Inference(NamedTuple):
    """How many images were predicted, how many instances reached the threshold, and why what was left out was."""

    images: int
    instances: int
    left_out: dict[str, str]


def infer(
    detector: Detector | ExportedDetector,
    inputs: Inputs,
    out_dir: Path,
    score_threshold: float = 0.5,
    batch_size: int | None = None,
) -> Inference:
    """Predict images and write overlays and COCO results, see the module; a bar with an ETA goes to standard error.

    Earlier overlays in ``out_dir`` are not predicted; files of an earlier inference there are replaced.

    Raises:
        InputError: No image could be read, the threshold is no score, or ``out_dir`` cannot be written.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f'score threshold must be from 0 to 1, got {score_threshold!r}')
    found = find_images(inputs, skip=out_dir / 'overlays')
    left_out = dict(found.left_out)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    common = os.path.commonpath([os.path.abspath(path.parent) for path in found.paths])
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for kept in _predictions(detector, found, left_out, score_threshold, batch_size):
            rows.append(kept.for_evaluation())
            place = overlay_path(kept.path, common)
            (out_dir / place).parent.mkdir(parents=True, exist_ok=True)
            jpeg = cv2.imencode('.jpg', overlay(kept), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            (out_dir / place).write_bytes(jpeg.tobytes())
            size = {'width': kept.width, 'height': kept.height}
            images.append({'id': kept.image_id, 'file_name': str(kept.path), **size, 'overlay': place.as_posix()})
        if not images:
            faults = '; '.join(f'{name}: {reason}' for name, reason in list(left_out.items())[:5])
            raise InputError(f'images must be readable, got none of {len(left_out)} that is: {faults}')
        # As in the ground truth, else counted from 1.
        known = CLASSES if set(detector.classes) <= set(CLASSES) else detector.classes
        ids = {name: known.index(name) + 1 for name in detector.classes}
        for kind in ('segm', 'bbox'):
            write_coco_results(out_dir / f'results.{kind}.json', shapes_of(rows, list(ids.values())), kind)
        index = {
            'info': {**_origin(detector), 'score_threshold': score_threshold},
            'images': images,
            'categories': [{'id': number, 'name': name} for name, number in ids.items()],
            'left_out': [{'file_name': name, 'reason': reason} for name, reason in left_out.items()],
        }
        write_json(out_dir / 'images.json', index)
    except OSError as error:
        raise InputError(f'--out must be a folder that can be written, got {str(out_dir)!r}: {error}') from error
    return Inference(len(images), sum(len(row['scores']) for row in rows), left_out)


def _predictions(
    detector: Detector | ExportedDetector,
    found: FoundImages,
    left_out: dict[str, str],
    score_threshold: float,
    batch_size: int | None,
) -> Iterator[Prediction]:
    """What reaches the threshold in each image, under a bar; what cannot be read is added to ``left_out``."""
    # In a log, a line every quarter of a minute.
    often_s = 0.2 if sys.stderr.isatty() else 15.0
    with tqdm(total=len(found.paths), desc='infer', unit='img', mininterval=often_s) as bar:

        def report(path: str, reason: str) -> None:
            left_out[path] = reason
            bar.update(path not in found.left_out)

        if isinstance(detector, Detector):
            predictions = detector.predict(found, batch_size, report)
        else:
            predictions = detector.predict(found.paths, score_threshold, found.ids, report)
        for prediction in predictions:
            yield prediction.above(score_threshold)
            bar.update()


def _origin(detector: Detector | ExportedDetector) -> dict[str, str]:
    """What a detector was made of, by what it is."""
    if isinstance(detector, Detector):
        return {'config': str(detector.config.filename), 'checkpoint': str(detector.checkpoint)}
    return {'model': str(detector.path)}


def predict_file(model: Path, ann_file: Path, image_folder: Path, out: Path) -> None:
    """Predict the images of a COCO file with an exported model, and write COCO results for an evaluation.

    Raises:
        InputError: Model or COCO file cannot be read.
    """
    detector, found = ExportedDetector.from_onnx(model), find_images(str(ann_file))
    usual = folder_of_images(ann_file)
    paths = [image_folder / path.relative_to(usual) for path in found.paths]
    bar = tqdm(detector.predict(paths, ids=found.ids), desc='predict', unit='img', total=len(paths), mininterval=15.0)
    # Classes by name: ids are the annotation file's own.
    write_coco_results(out, shapes_of([one.for_evaluation() for one in bar], detector.classes), 'segm')


def overlay(prediction: Prediction) -> np.ndarray:
    """The image with all instances drawn on it, ``(H, W, 3) uint8``, BGR; a small image is enlarged."""
    rows = zip(prediction.masks, prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
    instances = [Instance(mask, prediction.classes[label], score) for mask, label, score in rows]
    return draw_overlay(read_image(prediction.path), instances)


def overlay_path(path: Path, common: str) -> Path:
    """Where the overlay of an image goes below the output folder: as the image below the folder common to all."""
    place = Path('overlays') / os.path.relpath(os.path.abspath(path), common)
    return place if place.suffix == '.jpg' else place.with_name(f'{place.name}.jpg')
