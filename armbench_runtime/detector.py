"""A detector from an exported file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from armbench_runtime.errors import InputError, UnreadableImageError
from armbench_runtime.images import network_size, read_image, resized
from armbench_runtime.masks import encode_bitmap, pasted, upsampled, whole_mask
from armbench_runtime.prediction import Prediction

METADATA = 'armbench'
"""Key of the file's metadata, a JSON object."""
FORMAT = 2
Report = Callable[[str, str], None]


class Detector:
    """An exported model in onnxruntime; :meth:`from_onnx` makes one.

    Attributes:
        classes: Names of the labels.
        metadata: Classes, digests, input contract, thresholds and versions.
        path: The file.
    """

    def __init__(self, session: Any, path: Path) -> None:
        self._session, self.path = session, path
        self.metadata: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA, '{}'))
        if self.metadata.get('format') != FORMAT:
            raise InputError(
                f'model must have the metadata {METADATA!r} of format {FORMAT}, as tools/export.py writes them, got '
                f'{self.metadata.get("format")} (in {path}): export it again'
            )
        self.classes = tuple(self.metadata['classes'])

    @classmethod
    def from_onnx(
        cls, path: str | Path, threads: int = 0, providers: Sequence[str] = ('CPUExecutionProvider',)
    ) -> Detector:
        """Load a file that ``tools/export.py`` wrote.

        Args:
            path: The file.
            threads: That an image may use; 0 for all cores.
            providers: onnxruntime's execution providers.

        Raises:
            InputError: It is not such a file, or onnxruntime cannot run it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # onnxruntime's own have no common type
            reason = ' '.join(str(error).split())
            raise InputError(
                f'model must be an ONNX file that onnxruntime {onnxruntime.__version__} runs, got {reason} (in {path})'
            ) from error
        return cls(session, Path(path))

    def predict(
        self,
        images: str | Path | np.ndarray | Iterable[str | Path | np.ndarray],
        min_score: float = 0.0,
        ids: Sequence[int] | None = None,
        report: Report | None = None,
    ) -> Iterator[Prediction]:
        """Predict images, one prediction for each that can be read, in order.

        Args:
            images: Files, or arrays ``(H, W, 3) uint8``, RGB; or one of them.
            min_score: Instances with a lower one are left out, and their masks never made.
            ids: Of the images, by default their numbers from 1.
            report: Called with an image's path and the reason when it cannot be read and is left out; by default it
                is a warning.

        Raises:
            InputError: An array is no image, or an image is of another size than the model takes.
        """
        given = [images] if isinstance(images, str | Path | np.ndarray) else images
        report = report or (lambda path, reason: warnings.warn(f'{path} is left out: {reason}', stacklevel=3))
        for number, image in enumerate(given):
            try:
                yield self._predict(image, ids[number] if ids is not None else number + 1, min_score)
            except UnreadableImageError as error:
                report(str(image), str(error).removesuffix(f' (in {image})'))

    def pixels(self, image: str | Path | np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """What the network sees of an image, ``(h, w, 3) uint8``, and the image's height and width.

        Raises:
            InputError: See :meth:`predict`.
            UnreadableImageError: It cannot be read.
        """
        if not isinstance(image, np.ndarray):
            values, size = read_image(Path(image), self.metadata['input']['scale'])
        elif image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
            values, size = image, image.shape[:2]
        else:
            raise InputError(f'image must be (H, W, 3) uint8, got {image.shape} {image.dtype}')
        contract = self.metadata['input']
        network, fixed = network_size(contract['scale'], *size), contract['size']
        if fixed and list(network) != fixed:
            name = 'an array' if isinstance(image, np.ndarray) else image
            raise InputError(
                f'image must be of a size that scales to {fixed[1]}x{fixed[0]}, for which {self.path} was exported, '
                f'got {size[1]}x{size[0]} (in {name}); export it with --size {size[0]} {size[1]}, or with --dynamic'
            )
        return resized(values, *network), size

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the file by name, see docs/export.md."""
        outputs = self._session.run(None, {'image': pixels})
        return {one.name: value for one, value in zip(self._session.get_outputs(), outputs, strict=True)}

    def _predict(self, image: str | Path | np.ndarray, image_id: int, min_score: float) -> Prediction:
        pixels, size = self.pixels(image)
        found = self.run(pixels)
        masks = found.pop('masks')
        kept = np.flatnonzero(found['scores'] >= min_score)
        one = {name: value[kept] for name, value in found.items()}
        if 'boxes' in one:
            one['boxes'] = one['boxes'] * np.tile(np.divide(size[::-1], pixels.shape[1::-1], dtype=np.float32), 2)
            threshold = self.metadata['mask_threshold']
            pairs = zip(masks[kept], one['boxes'], strict=True)
            rles = [encode_bitmap(pasted(mask, box, size, threshold)) for mask, box in pairs]
        else:
            # The masks of queries, each made once, are of the whole padded input.
            (height, width), divisor = pixels.shape[:2], self.metadata['input']['divisor']
            padded = -(-height // divisor) * divisor, -(-width // divisor) * divisor
            queries, place = np.unique(one['queries'], return_inverse=True)
            made = [whole_mask(upsampled(masks[query], padded)[:height, :width], size) for query in queries]
            rles = [made[i][0] for i in place]
            one['boxes'] = np.array([made[i][1] for i in place], np.float32).reshape(-1, 4)
            one['scores'] = one['scores'] * np.array([made[i][2] for i in place], np.float32)
        path = Path() if isinstance(image, np.ndarray) else Path(image)
        arrays = one['boxes'], one['scores'], one['labels']
        return Prediction(image_id, path, *size, *arrays, rles, self.classes).above(min_score)
