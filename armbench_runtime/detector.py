"""A detector from an exported file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from armbench_runtime.errors import InputError, UnreadableImageError
from armbench_runtime.images import ImageScale, image_files, read_image, resized
from armbench_runtime.masks import bilinear_axis, encode_bitmap, interpolated, pasted, upsampled
from armbench_runtime.prediction import Prediction

METADATA = 'armbench'
"""Key of the file's metadata, a JSON object."""
FORMAT = 1
Report = Callable[[str, str], None]


class Detector:
    """An exported model in onnxruntime; :meth:`from_onnx` makes one.

    Args:
        session: An ``onnxruntime.InferenceSession``.
        metadata: What the file says of itself.
        path: The file.

    Attributes:
        classes: Names of the labels.
        metadata: Classes, digests, input contract, thresholds and versions.
        path: The file.
        scale: The size at which the network sees an image.
    """

    def __init__(self, session: Any, metadata: dict[str, Any], path: Path) -> None:
        self.metadata, self.path = metadata, path
        self.classes = tuple(metadata['classes'])
        self._session = session
        self._input = metadata['input']
        self.scale = ImageScale(**self._input['scale'])

    @classmethod
    def from_onnx(cls, path: str | Path, threads: int = 0, providers: Sequence[str] | None = None) -> Detector:
        """Load a file that ``tools/export.py`` wrote.

        Args:
            path: The file.
            threads: That an image may use; 0 for all cores.
            providers: onnxruntime's execution providers, by default the CPU's.

        Raises:
            InputError: It is not such a file, or onnxruntime cannot run it.
        """
        import onnxruntime

        path = Path(path)
        if not path.is_file():
            raise InputError(f'model must be an existing ONNX file, got {str(path)!r}')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            chosen = list(providers or ['CPUExecutionProvider'])
            session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
        except Exception as error:  # onnxruntime's own have no common type
            reason = ' '.join(str(error).split())
            raise InputError(
                f'model must be an ONNX file that onnxruntime {onnxruntime.__version__} runs, got {reason} (in {path})'
            ) from error
        return cls(session, _read_metadata(session.get_modelmeta().custom_metadata_map, path), path)

    def predict(
        self,
        images: str | Path | np.ndarray | Iterable[str | Path | np.ndarray],
        min_score: float = 0.0,
        ids: Sequence[int] | None = None,
        report: Report | None = None,
    ) -> Iterator[Prediction]:
        """Predict images, one prediction for each that can be read, in order.

        Args:
            images: Files, folders and patterns, or arrays ``(H, W, 3) uint8``, RGB.
            min_score: Instances with a lower one are left out, and their masks never made.
            ids: Of the images, by default their numbers from 1.
            report: Called with an image's path and the reason when it cannot be read and is left out; by default it
                is a warning.

        Raises:
            InputError: There is no image, an array is none, or an image is of another size than the model takes.
        """
        given = [images] if isinstance(images, str | Path | np.ndarray) else images
        number = 0
        for one in given:
            for image in [one] if isinstance(one, np.ndarray) else image_files(one):
                image_id = ids[number] if ids is not None else number + 1
                number += 1
                try:
                    yield self._predict(image, image_id, min_score)
                except UnreadableImageError as error:
                    (report or _warn)(str(image), str(error).removesuffix(f' (in {image})'))

    def _predict(self, image: np.ndarray | Path, image_id: int, min_score: float) -> Prediction:
        if isinstance(image, Path):
            path = image
            pixels, size = read_image(path, self.scale)
        else:
            path, pixels, size = Path(), image, image.shape[:2]
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise InputError(f'image must be (H, W, 3) uint8, got {image.shape} {image.dtype}')
        network = self.scale.network_size(*size)
        self._check(network, size, path)
        if self._input['resizing'] == 'outside':
            pixels = resized(pixels, *network)
        names = [output.name for output in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(names, {'image': pixels}), strict=True))
        kept = np.flatnonzero(found['scores'][: int(found['count'])] >= min_score)
        found = {name: value[kept] for name, value in found.items() if name != 'count'}
        make = self._boxed if 'boxes' in found else self._whole
        boxes, scores, masks = make(found, pixels.shape[:2], network, size)
        prediction = Prediction(image_id, path, *size, boxes, scores, found['labels'], masks, self.classes)
        return prediction.above(min_score)

    def _check(self, network: tuple[int, int], size: tuple[int, int], path: Path) -> None:
        if not all(network):
            raise UnreadableImageError(
                f'{size[1]}x{size[0]} is too narrow: nothing is left at the input size of the model (in {path})'
            )
        fixed = self._input['size']
        if fixed and list(network) != fixed:
            raise InputError(
                f'image must be of a size that scales to {fixed[1]}x{fixed[0]}, for which {self.path} was exported, '
                f'got {size[1]}x{size[0]} (in {path}); export it with --size {size[0]} {size[1]}, or with --dynamic'
            )

    def _boxed(self, found: dict[str, Any], given: Any, network: Any, size: Any) -> tuple[Any, ...]:
        """Boxes, scores and masks of instances whose small masks lie in their boxes."""
        boxes = found['boxes'] * np.tile(np.array(size[::-1], np.float32) / given[::-1], 2).astype(np.float32)
        threshold = self.metadata['mask_threshold']
        pairs = zip(found['masks'], boxes, strict=True)
        return boxes, found['scores'], [encode_bitmap(pasted(mask, box, size, threshold)) for mask, box in pairs]

    def _whole(self, found: dict[str, Any], given: Any, network: Any, size: Any) -> tuple[Any, ...]:
        """Boxes, scores and masks of instances whose small masks are of the whole padded input."""
        divisor = self._input['divisor']
        padded = [-(-side // divisor) * divisor for side in network]
        axes = [bilinear_axis(cells, side) for cells, side in zip(found['masks'].shape[1:], padded, strict=True)]
        boxes, scores, masks = [], [], []
        for mask, score in zip(found['masks'], found['scores'], strict=True):
            at_input = interpolated(mask, *axes)[: network[0], : network[1]]
            bitmap, box, sureness = upsampled(at_input, size)
            boxes.append(box)
            scores.append(score * np.float32(sureness))
            masks.append(encode_bitmap(bitmap))
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), masks


def _read_metadata(stored: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(stored[METADATA])
        version = metadata['format']
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f'model must have the metadata {METADATA!r}, which tools/export.py writes, got {sorted(stored)} (in {path})'
        ) from error
    if version != FORMAT:
        raise InputError(f'format of the model must be {FORMAT}, got {version!r} (in {path}): export it again')
    return metadata


def _warn(path: str, reason: str) -> None:
    warnings.warn(f'{path} is left out: {reason}', stacklevel=3)
