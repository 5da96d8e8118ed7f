"""Export: a file that says on real images what the model says, or none."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.datasets.images import FoundImages, find_images, image_size, read_bytes
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import match_table, sized_tables, summary
from armbench_mmdet.evaluation.metric import shapes_of
from armbench_mmdet.evaluation.protocol import Matching
from armbench_mmdet.export.write import DetectorGraph, write_onnx
from armbench_mmdet.files import draft_of
from armbench_mmdet.inference import Detector
from armbench_mmdet.minibench import make_minibench
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime import Prediction
from armbench_runtime.images import network_size

CHECK_IMAGES, LEAST_INSTANCES = 8, 20
SCORE_TOLERANCE = AP_TOLERANCE = 1e-3
LEAST_IOU = 0.99
_FAR = 1e6


class Parity(NamedTuple):
    """A comparison of two detectors.

    Attributes:
        instances: How many pairs were compared.
        image: The image that is farthest off.
        faults: What is outside the tolerances, and whether too little was compared.
        line: The numbers.
    """

    instances: int
    image: Path
    faults: list[str]
    line: str


def export(
    detector: Detector, out: Path, size: tuple[int, int] | None, check: list[str] | None = None, force: bool = False
) -> Parity:
    """Write an ONNX file once it is known to say what the model says.

    Args:
        detector: The model, on the CPU.
        out: The file.
        size: Height and width of the images; None for any.
        check: Images to compare on, as :func:`~armbench_mmdet.datasets.images.find_images` takes them; a COCO file's
            annotations are compared on too. By default a few totes are made.
        force: Write the file whatever the comparison says.

    Raises:
        InputError: Model and file differ, or there was too little to compare; nothing is written then.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, draft_of(out) as draft:
        images = find_images(check or _totes(Path(folder), *size or (256, 320)))
        write_onnx(detector, draft, size)
        exported = ExportedDetector.from_onnx(draft)
        fixed, scale = exported.metadata['input']['size'], exported.metadata['input']['scale']
        sizes = [list(network_size(scale, *image_size(read_bytes(path), path))) for path in images.paths]
        fitting = [i for i, one in enumerate(sizes) if fixed in (None, one)]
        if not fitting:
            raise InputError(f'--check must have images that scale to {fixed[1]}x{fixed[0]} as --size says, got none')
        found = FoundImages([images.paths[i] for i in fitting], [images.ids[i] for i in fitting])
        expected = list(detector.predict(found, batch_size=1))
        got = list(exported.predict([one.path for one in expected], ids=[one.image_id for one in expected]))
        truth = None
        if images.ann_file:
            truth = GroundTruthSource(str(images.ann_file), cache_dir=folder).load().of_classes(detector.classes)
        parity = compare(expected, got, truth)
        if parity.faults and not force:
            raise InputError(
                f'the exported file must say what the model says, got: {"; ".join(parity.faults)}; first diverging '
                f'stage: {first_diverging_stage(detector, parity.image, size)} (on {parity.image}); nothing is '
                'written, unless with --force'
            )
    return parity


def _totes(folder: Path, height: int, width: int) -> str:
    """A COCO file of a few totes made into a folder."""
    counts = {('mix-object-tote', 'test'): CHECK_IMAGES}
    make_minibench(folder, counts=counts, width_px=width, height_px=height, workers=1, show_progress=False)
    return str(folder / 'mix-object-tote/test.json')


def compare(
    expected: Sequence[Prediction], got: Sequence[Prediction], ground_truth: GroundTruth | None = None
) -> Parity:
    """Compare two predictions of the same images.

    Args:
        expected: The model's.
        got: The file's.
        ground_truth: Of these images and perhaps more, with the classes of the model; or None.
    """
    rows = np.array([_differences(*pair) for pair in zip(expected, got, strict=True)])
    pairs, alone, scores, ious = rows.T
    worst = int(np.argmax(alone + scores / SCORE_TOLERANCE + (1 - ious) / (1 - LEAST_IOU)))
    count, unpaired, score, iou, ap = int(pairs.sum()), int(alone.sum()), scores.max(), ious.min(), 0.0
    if ground_truth is not None:
        numbers = [_average_precisions(one, ground_truth) for one in (expected, got)]
        ap = np.nanmax(np.abs(numbers[0] - numbers[1]), initial=0.0)
    outside = {
        f'{unpaired} instances have no counterpart': unpaired > 0,
        f'scores differ by up to {score:.2g}, allowed is {SCORE_TOLERANCE:g}': score > SCORE_TOLERANCE,
        f'masks overlap by as little as IoU {iou:.4f}, needed is {LEAST_IOU:g}': iou < LEAST_IOU,
        f'average precision differs by up to {ap:.2g}, allowed is {AP_TOLERANCE:g}': ap > AP_TOLERANCE,
        f'this proves nothing: {count} instances were compared, needed are {LEAST_INSTANCES}': count < LEAST_INSTANCES,
    }
    line = f'{count} instances of {len(rows)} images compared: scores within {score:.1e}, mask IoU ≥ {iou:.4f}, ' + (
        'no ground truth' if ground_truth is None else f'AP within {ap:.1e}'
    )
    return Parity(count, expected[worst].path, [fault for fault, is_outside in outside.items() if is_outside], line)


def _differences(a: Prediction, b: Prediction) -> tuple[int, int, float, float]:
    """Pairs, instances without one, the largest difference of scores and the smallest IoU."""
    gaps, overlaps = np.abs(a.scores[:, None] - b.scores), _overlaps(a.masks, b.masks)
    costs = gaps / SCORE_TOLERANCE + (1 - overlaps) / (1 - LEAST_IOU) + _FAR * (a.labels[:, None] != b.labels)
    rows, columns = linear_sum_assignment(costs)
    pairs = tuple(places[costs[rows, columns] < _FAR] for places in (rows, columns))
    left = np.concatenate([np.delete(one.scores, places) for one, places in zip((a, b), pairs, strict=True)])
    # At the end of a list, of the best hundred or of scores that are high enough, a rounding decides who is in it.
    end = max((one.scores.min() for one in (a, b) if len(one)), default=0.0) + SCORE_TOLERANCE
    alone = int((left > end).sum())
    return len(pairs[0]), alone, float(gaps[pairs].max(initial=0)), float(overlaps[pairs].min(initial=1))


def _overlaps(a: list, b: list) -> np.ndarray:
    """IoU of all pairs; masks that differ by no more than one pixel, on which a rounding decides, count as equal."""
    overlaps = np.reshape(coco_mask.iou(a, b, [0] * len(b)), (len(a), len(b)))
    own, other = (np.array([coco_mask.area(mask) for mask in masks], np.float64) for masks in (a, b))
    different = (own[:, None] + other) * (1 - overlaps) / (1 + overlaps)
    return np.where(different < 1.5, 1.0, overlaps)


def _average_precisions(predictions: Sequence[Prediction], ground_truth: GroundTruth) -> np.ndarray:
    """COCO's numbers, of masks and of boxes; NaN for None."""
    truth = ground_truth.of_images(one.image_id for one in predictions)
    found = shapes_of([one.for_evaluation() for one in predictions], list(truth.categories))
    matchings = [Matching(truth, found, kind) for kind in ('segm', 'bbox')]
    return np.array([[*summary(match_table(one), sized_tables(one)).values()] for one in matchings], float)


def first_diverging_stage(detector: Detector, image: Path, size: tuple[int, int] | None) -> str:
    """The stage at which the file leaves the model, on the way from the image to the instances.

    Args:
        detector: The model.
        image: An image on which they differ.
        size: As for :func:`export`.
    """
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / 'stages.onnx'
        write_onnx(detector, file, size, with_stages=True)
        exported = ExportedDetector.from_onnx(file)
        pixels = exported.pixels(image)[0]
        found = exported.run(pixels)
        stages = DetectorGraph(detector.model, with_stages=True).eval()(torch.from_numpy(pixels.copy()))
    steps = [(name, value.numpy(), found[name]) for name, value in stages.items()]
    for name, wanted, got in [('image', detector.preprocessed(image).numpy(), stages['input'].numpy()), *steps]:
        bound = (1e-2 if name == 'image' else 1e-3) * np.abs(wanted).max(initial=0)
        if got.shape != wanted.shape or np.abs(got - wanted).max(initial=0) > bound:
            return name
    return 'none in the network'
