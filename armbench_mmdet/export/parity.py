"""Whether an exported file says what the model says, on real images: no file without this."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.datasets.images import FoundImages, folder_of_images
from armbench_mmdet.evaluation.coco_results import evaluate_results
from armbench_mmdet.evaluation.predictions import shapes_of, write_coco_results
from armbench_mmdet.evaluation.result import Result
from armbench_mmdet.export.graph import DetectorGraph
from armbench_mmdet.export.write import write_onnx
from armbench_mmdet.inference.detector import Detector
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime import Prediction
from armbench_runtime.images import read_image, resized

LEAST_INSTANCES = 20
AP_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Tolerance:
    """How far an instance may be from its counterpart: in its score, and the IoU that their masks have at least."""

    score: float
    iou: float


EXACT, HALF = Tolerance(1e-3, 0.99), Tolerance(1e-2, 0.97)


@dataclass(frozen=True)
class Parity:
    """A comparison of two detectors.

    Attributes:
        instances: How many pairs were compared.
        unpaired: Instances that only one of them found, whose scores are clear of where lists end.
        score: The largest difference of scores.
        iou: The smallest IoU of two masks.
        images: How many were predicted.
        image: The image that is farthest off.
        ap: The largest difference of any average precision or recall; None without ground truth.
        tolerance: What is allowed.
    """

    instances: int
    unpaired: int
    score: float
    iou: float
    images: int
    image: Path
    ap: float | None
    tolerance: Tolerance

    @property
    def differences(self) -> list[str]:
        """What is outside the tolerances."""
        found = []
        if self.unpaired:
            found.append(f'{self.unpaired} instances have no counterpart')
        if self.score > self.tolerance.score:
            found.append(f'scores differ by up to {self.score:.2g}, allowed is {self.tolerance.score:g}')
        if self.iou < self.tolerance.iou:
            found.append(f'masks overlap by as little as IoU {self.iou:.4f}, needed is {self.tolerance.iou:g}')
        if (self.ap or 0) > AP_TOLERANCE:
            found.append(f'average precision differs by up to {self.ap:.2g}, allowed is {AP_TOLERANCE:g}')
        return found

    @property
    def faults(self) -> list[str]:
        """The differences, and whether too little was compared."""
        if self.instances >= LEAST_INSTANCES:
            return self.differences
        few = f'this proves nothing: {self.instances} instances were compared, needed are {LEAST_INSTANCES}'
        return [*self.differences, few]

    def __str__(self) -> str:
        """The numbers in one line."""
        ap = 'no ground truth' if self.ap is None else f'AP within {self.ap:.1e}'
        found = f'{self.instances} instances of {self.images} images compared'
        return f'{found}: scores within {self.score:.1e}, mask IoU ≥ {self.iou:.4f}, {ap}'


def compare(
    detector: Detector,
    exported: ExportedDetector,
    images: FoundImages,
    tolerance: Tolerance,
    ann_file: Path | None = None,
) -> Parity:
    """Predict images with both and compare.

    Args:
        detector: The model.
        exported: The file.
        images: The images.
        tolerance: What is allowed.
        ann_file: Ground truth of the images, or None.
    """
    expected = list(detector.predict(images, batch_size=1))
    got = list(exported.predict([one.path for one in expected], ids=[one.image_id for one in expected]))
    rows = [_differences(*pair, tolerance) for pair in zip(expected, got, strict=True)]
    worst = max(rows, key=lambda row: (row[1], row[2] / tolerance.score + (1 - row[3]) / (1 - tolerance.iou)))
    columns = list(zip(*rows, strict=True))
    ap = None
    if ann_file is not None:
        ap = largest_difference(*(scored(predictions, ann_file) for predictions in (expected, got)))
    image = expected[rows.index(worst)].path
    return Parity(sum(columns[0]), sum(columns[1]), max(columns[2]), min(columns[3]), len(rows), image, ap, tolerance)


def _differences(a: Prediction, b: Prediction, tolerance: Tolerance) -> tuple[int, int, float, float]:
    """Pairs, instances without one, the largest difference of scores and the smallest IoU."""
    pairs, score, iou = 0, 0.0, 1.0
    paired = np.zeros(len(a), bool), np.zeros(len(b), bool)
    for label in set(a.labels) | set(b.labels):
        own, other = np.flatnonzero(a.labels == label), np.flatnonzero(b.labels == label)
        if not len(own) or not len(other):
            continue
        overlaps = _overlaps([a.masks[i] for i in own], [b.masks[i] for i in other])
        gaps = np.abs(a.scores[own, None] - b.scores[other])
        rows, columns = linear_sum_assignment(gaps / tolerance.score + (1 - overlaps) / (1 - tolerance.iou))
        paired[0][own[rows]], paired[1][other[columns]] = True, True
        pairs += len(rows)
        score, iou = max(score, gaps[rows, columns].max()), min(iou, overlaps[rows, columns].min())
    # At the end of a list, of the best hundred or of scores that are high enough, a rounding decides who is in it.
    end = max((one.scores.min() for one in (a, b) if len(one)), default=0.0) + tolerance.score
    alone = sum(int((one.scores[~has] > end).sum()) for one, has in zip((a, b), paired, strict=True))
    return pairs, alone, float(score), float(iou)


def _overlaps(a: list, b: list) -> np.ndarray:
    """IoU of all pairs; masks that differ by no more than one pixel, on which a rounding decides, count as equal."""
    overlaps = np.asarray(coco_mask.iou(a, b, [0] * len(b)))
    own, other = (np.array([coco_mask.area(mask) for mask in masks], np.float64) for masks in (a, b))
    total = own[:, None] + other
    different = total * (1 - overlaps) / (1 + overlaps)
    return np.where(different < 1.5, 1.0, overlaps)


def scored(predictions: Sequence[Prediction], ann_file: Path) -> Result:
    """The scores of predictions on their images, as ``tools/evaluate.py`` has them."""
    with tempfile.TemporaryDirectory() as folder:
        file, rows = Path(folder) / 'results.json', [one.for_evaluation() for one in predictions]
        write_coco_results(file, shapes_of(rows, predictions[0].classes), 'segm')
        content, ids = json.loads(ann_file.read_bytes()), {one.image_id for one in predictions}
        content['images'] = [one for one in content['images'] if one['id'] in ids]
        content['annotations'] = [one for one in content['annotations'] if one['image_id'] in ids]
        truth = Path(folder) / ann_file.parent.name / ann_file.name
        truth.parent.mkdir()
        truth.write_text(json.dumps(content))
        source = GroundTruthSource(str(truth), str(folder_of_images(ann_file)), cache_dir=folder)
        return evaluate_results(file, source)


def largest_difference(a: Result, b: Result) -> float:
    """Of any number of two results."""
    pairs = [
        (one, b.scores[kind].numbers()[name]) for kind, own in a.scores.items() for name, one in own.numbers().items()
    ]
    return max((abs(one - other) for one, other in pairs if one is not None and other is not None), default=0.0)


def first_diverging_stage(
    detector: Detector, image: Path, image_size: tuple[int, int] | None, resizing: str, half: bool
) -> str:
    """The stage at which the file leaves the model, on the way from the image to the instances.

    Args:
        detector: The model.
        image: An image on which they differ.
        image_size: As for :func:`~armbench_mmdet.export.write.write_onnx`, like what follows.
        resizing: See there.
        half: See there.
    """
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / 'stages.onnx'
        write_onnx(detector, file, image_size, resizing, half, with_stages=True)
        exported = ExportedDetector.from_onnx(file, threads=1)
        pixels, size = read_image(image, exported.scale)
        is_inside = exported.metadata['input']['resizing'] == 'inside'
        network_size = exported.scale.network_size(*size)
        given = pixels if is_inside else resized(pixels, *network_size)
        outputs, stages = DetectorGraph(detector.model, network_size if is_inside else None).eval()(
            torch.from_numpy(given.copy())
        )
        names = [*stages, *outputs]
        session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
        found = dict(zip(names, session.run(names, {'image': given}), strict=True))
    eager = detector.preprocessed(image)
    if (eager.shape != stages['input'].shape) or not torch.allclose(eager, stages['input'], atol=0.02):
        return 'image (decoding, resizing or normalisation)'
    for name, value in {**stages, **outputs}.items():
        bound = (1e-1 if half else 1e-3) * float(value.abs().max())
        if np.abs(found[name].astype(np.float64) - value.numpy()).max() > bound:
            return name
    return 'instances (the graph agrees with itself in PyTorch, but not with the model)'
