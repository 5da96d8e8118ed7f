"""A detector from an exported file, and what it predicts."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from armbench_runtime.images import InputError, UnreadableImageError, network_size, read_image, resized
from armbench_runtime.masks import pasted

METADATA = 'armbench'
"""Key of the file's metadata, a JSON object."""
FORMAT = 3
Image = str | Path | np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The N instances predicted in an image.

    Attributes:
        image_id: Place of the image among those asked for, from 1, broken ones counted; or its id in a COCO file.
        path: The image file; an empty path for an array.
        height: In px, upright.
        width: In px, upright.
        boxes: ``(N, 4)`` float32, x1, y1, x2, y2 in px.
        scores: ``(N,)`` float32, 0 to 1.
        labels: ``(N,)`` int64, indices into ``classes``.
        masks: N compressed COCO RLE dicts; ``pycocotools.mask.decode`` gives bitmaps.
        classes: Names of the labels.
    """

    image_id: int
    path: Path
    height: int
    width: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """N."""
        return len(self.scores)

    def above(self, threshold: float) -> Prediction:
        """The instances with a score of at least ``threshold``."""
        kept = np.flatnonzero(self.scores >= threshold)
        arrays = {key: getattr(self, key)[kept] for key in ('boxes', 'scores', 'labels')}
        return dataclasses.replace(self, **arrays, masks=[self.masks[i] for i in kept])

    def for_evaluation(self) -> dict[str, Any]:
        """The prediction as ``armbench_mmdet.evaluation.metric`` has it."""
        arrays = {'bboxes': self.boxes, 'scores': self.scores, 'labels': self.labels, 'masks': self.masks}
        return {'img_id': self.image_id, **arrays}


@dataclasses.dataclass(frozen=True)
class Detector:
    """An exported model in onnxruntime; :meth:`from_onnx` makes one.

    Attributes:
        metadata: Classes, digests, input contract, thresholds and versions.
        classes: Names of the labels.
    """

    path: Path
    session: Any
    metadata: dict[str, Any]
    classes: tuple[str, ...]

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
        metadata = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA, '{}'))
        if metadata.get('format') != FORMAT:
            raise InputError(
                f'model must have the metadata {METADATA!r} of format {FORMAT}, as tools/export.py writes them, got '
                f'{metadata.get("format")} (in {path}): export it again'
            )
        return cls(Path(path), session, metadata, tuple(metadata['classes']))

    def predict(
        self,
        images: Image | Iterable[Image],
        min_score: float = 0.0,
        ids: Sequence[int] | None = None,
        report: Callable[[str, str], None] | None = None,
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
        given = [images] if isinstance(images, Image) else images
        report = report or (lambda path, reason: warnings.warn(f'{path} is left out: {reason}', stacklevel=3))
        for number, image in enumerate(given):
            try:
                yield self._predict(image, ids[number] if ids is not None else number + 1, min_score)
            except UnreadableImageError as error:
                report(str(image), str(error).removesuffix(f' (in {image})'))

    def outputs(self, image: Image) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[int, int]]:
        """The file's outputs of an image, see docs/export.md; what the network sees of it; its height and width.

        Raises:
            InputError: See :meth:`predict`.
            UnreadableImageError: It cannot be read.
        """
        contract, name = self.metadata['input'], 'an array' if isinstance(image, np.ndarray) else image
        if not isinstance(image, np.ndarray):
            values, size = read_image(Path(image), contract['scale'])
        elif image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
            values, size = image, image.shape[:2]
        else:
            raise InputError(f'image must be (H, W, 3) uint8, got {image.shape} {image.dtype}')
        network, fixed = network_size(contract['scale'], *size), contract['size']
        if fixed and list(network) != fixed:
            raise InputError(
                f'image must be of a size that scales to {fixed[1]}x{fixed[0]}, for which {self.path} was exported, '
                f'got {size[1]}x{size[0]} (in {name}); export it with --size {size[0]} {size[1]}, or with --dynamic'
            )
        pixels, names = resized(values, *network), [one.name for one in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {'image': pixels}), strict=True)), pixels, size

    def _predict(self, image: Image, image_id: int, min_score: float) -> Prediction:
        found, pixels, size = self.outputs(image)
        kept = np.flatnonzero(found['scores'] >= min_score)
        scores, labels = found['scores'][kept], found['labels'][kept]
        if 'boxes' in found:
            boxes = found['boxes'][kept] * np.tile(np.divide(size[::-1], pixels.shape[1::-1], dtype=np.float32), 2)
            cells = (boxes[:, 2:] - boxes[:, :2]) / found['masks'].shape[:0:-1]
            wider = np.concatenate([boxes[:, :2] - cells, boxes[:, 2:] + cells], 1)
            pairs = zip(np.pad(found['masks'][kept], ((0, 0), (1, 1), (1, 1))), wider, strict=True)
            masks = [pasted(mask, box, size, self.metadata['mask_threshold'])[0] for mask, box in pairs]
        else:
            # Masks of queries are at a quarter of the padded input.
            queries, place = np.unique(found['queries'][kept], return_inverse=True)
            height, width = np.multiply(found['masks'].shape[1:], 4) * size / pixels.shape[:2]
            made = [pasted(found['masks'][query], (0, 0, width, height), size, 0) for query in queries]
            sure = [np.sum(1 / (1 + np.exp(-logits))) / (len(logits) + 1e-6) for _, logits in made]
            masks = [made[i][0] for i in place]
            boxes = np.reshape(coco_mask.toBbox(masks), (-1, 4)).astype(np.float32)
            boxes[:, 2:] += boxes[:, :2]
            scores = scores * np.array(sure, np.float32)[place]
        path = Path('' if isinstance(image, np.ndarray) else image)
        return Prediction(image_id, path, *size, boxes, scores, labels, masks, self.classes).above(min_score)
