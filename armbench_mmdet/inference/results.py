"""The output of an inference: overlays and COCO results, in one folder.

- ``overlays/…jpg``: each image with its instances drawn on it, under its path below the folder that all images share.
- ``results.segm.json`` and ``results.bbox.json``: COCO results (``image_id``, ``category_id``, ``score`` and
  ``segmentation`` or ``bbox``) of the instances with at least the score threshold. An average precision needs them
  all: threshold 0.
- ``images.json``: what the ids mean, as a COCO file without annotations (``pycocotools.coco.COCO`` loads it, and its
  ``loadRes`` the results): ``images`` with ``id``, ``file_name`` as found, ``width``, ``height`` and ``overlay``;
  ``categories``; ``info`` with config, checkpoint and threshold; ``left_out`` with ``file_name`` and ``reason``.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
from tqdm import tqdm

from armbench_mmdet.datasets.images import FoundImages, Inputs, find_images, folder_of_images
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.predictions import coco_results, shapes_of, write_coco_results
from armbench_mmdet.files import draft_of, write_atomically
from armbench_mmdet.inference.detector import Detector, Report
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime import Prediction

JPEG_QUALITY = 90
_KINDS = ('segm', 'bbox')


@dataclass(frozen=True)
class Inference:
    """How an inference went.

    Attributes:
        images: How many were predicted.
        instances: How many instances reached the threshold.
        left_out: Reason by image or input that was not predicted.
    """

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

    Args:
        detector: The model, or an exported one.
        inputs: Files, folders and patterns; earlier overlays in ``out_dir`` that lie below a folder are not taken.
        out_dir: Made if need be; files of an earlier inference in it are replaced.
        score_threshold: Instances below it are neither drawn nor written.
        batch_size: As for :meth:`~armbench_mmdet.inference.detector.Detector.predict`.

    Raises:
        InputError: No image could be read, the threshold is no score, or ``out_dir`` cannot be written.
    """
    if not 0 <= score_threshold <= 1:
        raise InputError(f'score threshold must be from 0 to 1, got {score_threshold!r}')
    found = find_images(inputs, skip=out_dir / 'overlays')
    left_out: dict[str, str] = {}
    overlays = overlay_paths(found.paths)
    images: list[dict[str, Any]] = []
    ids = category_ids(detector.classes)
    try:
        (out_dir / 'overlays').mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            results = {kind: stack.enter_context(_written(out_dir / f'results.{kind}.json')) for kind in _KINDS}
            # In a log, a line every quarter of a minute.
            often_s = 0.2 if sys.stderr.isatty() else 15.0
            bar = stack.enter_context(tqdm(total=len(found.paths), desc='infer', unit='img', mininterval=often_s))

            def report(path: str, reason: str) -> None:
                left_out[path] = reason
                bar.update(path not in found.left_out)

            instances = 0
            for prediction in _predictions(detector, found, score_threshold, batch_size, report):
                kept = prediction.above(score_threshold)
                instances += len(kept)
                shapes = shapes_of([kept.for_evaluation()], ids)
                for kind, write in results.items():
                    write(coco_results(shapes, kind))
                place = overlays[kept.path]
                (out_dir / place).parent.mkdir(parents=True, exist_ok=True)
                jpeg = cv2.imencode('.jpg', kept.overlay(), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
                (out_dir / place).write_bytes(jpeg.tobytes())
                size = {'width': kept.width, 'height': kept.height}
                images.append({'id': kept.image_id, 'file_name': str(kept.path), **size, 'overlay': place.as_posix()})
                bar.update()
            if not images:
                faults = '; '.join(f'{name}: {reason}' for name, reason in list(left_out.items())[:5])
                raise InputError(f'images must be readable, got none of {len(left_out)} that is: {faults}')
        _write_index(out_dir, detector, images, left_out, score_threshold)
    except OSError as error:
        raise InputError(f'--out must be a folder that can be written, got {str(out_dir)!r}: {error}') from error
    return Inference(len(images), instances, left_out)


def _predictions(
    detector: Detector | ExportedDetector,
    found: FoundImages,
    min_score: float,
    batch_size: int | None,
    report: Report,
) -> Iterator[Prediction]:
    if isinstance(detector, Detector):
        return detector.predict(found, batch_size, report)
    for name, reason in found.left_out.items():
        report(name, reason)
    return detector.predict(found.paths, min_score, found.ids, report)


def predict_file(model: Path, ann_file: Path, image_folder: Path, out: Path) -> None:
    """Predict the images of a COCO file with an exported model, and write COCO results for an evaluation.

    Args:
        model: The ONNX file.
        ann_file: The COCO file.
        image_folder: Where its images lie.
        out: The file to write.

    Raises:
        InputError: Model or COCO file cannot be read.
    """
    detector, found = ExportedDetector.from_onnx(model), find_images(str(ann_file))
    usual = folder_of_images(ann_file)
    paths = [image_folder / path.relative_to(usual) for path in found.paths]
    bar = tqdm(detector.predict(paths, ids=found.ids), desc='predict', unit='img', total=len(paths), mininterval=15.0)
    # Classes by name: ids are the annotation file's own.
    write_coco_results(out, shapes_of([one.for_evaluation() for one in bar], detector.classes), 'segm')


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """Write COCO results as they come; the file has its name once it is complete."""
    with draft_of(path) as draft, draft.open('wb') as file:
        file.write(b'[')

        def write(detections: Iterable[dict[str, Any]]) -> None:
            for one in detections:
                file.write((b',\n' if file.tell() > 1 else b'') + msgspec.json.encode(one))

        yield write
        file.write(b']\n')


def overlay_paths(paths: Sequence[Path]) -> dict[Path, Path]:
    """Where the overlay of each image goes below the output folder; no two share a place.

    Images keep their folders below the deepest one that all are in. Names that differ only in their suffix, or in
    upper and lower case, get a number.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in absolute])
    taken: set[str] = set()
    places = {}
    for path, whole in zip(paths, absolute, strict=True):
        place, number = whole.relative_to(common).with_suffix('.jpg'), 1
        while str(place).casefold() in taken:
            number += 1
            place = place.with_name(f'{whole.stem}-{number}.jpg')
        taken.add(str(place).casefold())
        places[path] = Path('overlays') / place
    return places


def category_ids(classes: Sequence[str]) -> list[int]:
    """The COCO category id of each label: as in the ground truth, else counted from 1."""
    known = set(classes) <= set(CLASSES)
    return [CLASSES.index(name) + 1 if known else label for label, name in enumerate(classes, 1)]


def _write_index(
    out_dir: Path,
    detector: Detector | ExportedDetector,
    images: list[dict[str, Any]],
    left_out: dict[str, str],
    score_threshold: float,
) -> None:
    categories = zip(category_ids(detector.classes), detector.classes, strict=True)
    if isinstance(detector, Detector):
        model = {'config': str(detector.config.filename), 'checkpoint': str(detector.checkpoint)}
    else:
        model = {'model': str(detector.path)}
    index: dict[str, Any] = {
        'info': {**model, 'score_threshold': score_threshold},
        'images': images,
        'categories': [{'id': number, 'name': name} for number, name in categories],
        'left_out': [{'file_name': name, 'reason': reason} for name, reason in left_out.items()],
    }
    write_atomically(out_dir / 'images.json', msgspec.json.format(msgspec.json.encode(index), indent=2) + b'\n')
