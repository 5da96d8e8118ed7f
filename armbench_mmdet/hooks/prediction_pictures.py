"""Pictures of predictions while a model is validated or tested."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.runner import Runner

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.datasets.images import read_image
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import checked_prediction
from armbench_mmdet.masks.encode import encode_masks
from armbench_mmdet.visualization import Instance, draw_overlay

WRITTEN = ('.jpg', '.jpeg', '.png')


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draws the ground truth, where the pipeline loads it, beside the predictions on the photo as it is.

    Args:
        draw: Whether to draw at all.
        interval: Iterations between two validation images, which go to the visualizer.
        score_thr: Predictions below it are not drawn.
        test_out_dir: Where a picture of each test image goes, under the image's path below its image folder.
    """

    def __init__(
        self, draw: bool = False, interval: int = 50, score_thr: float = 0.3, test_out_dir: str | None = None
    ) -> None:
        self.draw, self.interval, self.score_thr, self.test_out_dir = draw, interval, score_thr, test_out_dir

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show the first image of a batch now and then."""
        step = runner.iter + batch_idx
        if self.draw and outputs and step % self.interval == 0:
            picture = self._drawn(outputs[0], runner.val_loop.dataloader.dataset)
            runner.visualizer.add_image('val_img', np.ascontiguousarray(picture[..., ::-1]), step)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write a picture of every image that could be read.

        Raises:
            InputError: It cannot be written.
        """
        if not self.draw or self.test_out_dir is None:
            return
        dataset = runner.test_loop.dataloader.dataset
        for sample in outputs or ():
            if 'unreadable' in sample:
                continue
            file = Path(self.test_out_dir, _place(sample.img_path, GroundTruthSource.of(dataset.metainfo)))
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(cv2.imencode(file.suffix, self._drawn(sample, dataset))[1].tobytes())
            except OSError as error:
                raise InputError(f'pictures must go to a folder that can be written, got {file}: {error}') from error

    def _drawn(self, sample: DetDataSample, dataset: Any) -> np.ndarray:
        image, names = read_image(Path(sample.img_path)), dataset.metainfo['classes']
        about = {'img_id': sample.img_id, 'ori_shape': image.shape[:2]}
        found = checked_prediction({**sample.to_dict(), **about}, len(names), with_masks=True)
        rows = zip(found['masks'], found['labels'].tolist(), found['scores'].tolist(), strict=True)
        guessed = [Instance(mask, names[label], score) for mask, label, score in rows if score >= self.score_thr]
        panels = [draw_overlay(image, guessed)]
        if 'masks' in sample.get('gt_instances', {}):
            truth = sample.gt_instances  # at the size of the network's input: drawn, masks are scaled to the photo
            pairs = zip(encode_masks(truth.masks.to_ndarray()), truth.labels.tolist(), strict=True)
            panels.insert(0, draw_overlay(image, [Instance(mask, names[label]) for mask, label in pairs]))
        return np.concatenate(panels, axis=1)


def _place(img_path: str, source: GroundTruthSource | None) -> Path:
    """An image's path below its image folder, its name if it lies elsewhere; as a kind of file that can be written."""
    path, folder = Path(img_path), Path(source.image_folder or '') if source else Path()
    inside = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    inside = Path(*(part for part in inside.parts if part != '..'))
    return inside if inside.suffix.lower() in WRITTEN else inside.with_name(f'{inside.name}.jpg')
