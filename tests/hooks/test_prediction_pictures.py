"""Pictures of predictions: one for each photo, at its own size, whatever the model and the folders."""

import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.hooks.prediction_pictures import PicturesHook


def sample_of(path: Path, size: tuple[int, int], truth_size: tuple[int, int] | None = None) -> DetDataSample:
    """A photo on the disk, and a sample with a prediction on its left half; the truth at the network's size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))
    left = np.zeros((1, *size), bool)
    left[:, :, : size[1] // 2] = True
    sample = DetDataSample(metainfo={'img_id': 1, 'img_path': str(path), 'ori_shape': size})
    some = {'bboxes': torch.tensor([[0.0, 0.0, size[1] / 2, size[0]]]), 'labels': torch.tensor([1])}
    sample.pred_instances = InstanceData(**some, scores=torch.tensor([0.9]), masks=torch.from_numpy(left))
    if truth_size:
        sample.gt_instances = InstanceData(**some, masks=BitmapMasks(np.ones((1, *truth_size), np.uint8), *truth_size))
    return sample


def runner_of(folder: Path) -> Any:
    source = GroundTruthSource(str(folder / 'test.json'), str(folder / 'images'))
    dataset = types.SimpleNamespace(metainfo={'classes': ('tote', 'object'), **source.as_metainfo()})
    return types.SimpleNamespace(test_loop=types.SimpleNamespace(dataloader=types.SimpleNamespace(dataset=dataset)))


def draw(tmp_path: Path, *samples: DetDataSample) -> Path:
    """Draw a batch of test images; returns the folder of the pictures."""
    PicturesHook(draw=True, test_out_dir=str(tmp_path / 'shown')).after_test_iter(runner_of(tmp_path), 0, None, samples)
    return tmp_path / 'shown'


@pytest.mark.parametrize(('size', 'truth_size'), [((128, 160), (256, 320)), ((900, 50), None), ((77, 801), (40, 416))])
def test_a_photo_of_any_size_gets_its_picture(tmp_path: Path, size, truth_size) -> None:
    shown = draw(tmp_path, sample_of(tmp_path / 'images/a.jpg', size, truth_size))
    picture = cv2.imread(str(shown / 'a.jpg'))
    panels = 2 if truth_size else 1
    assert picture.shape[0] / (picture.shape[1] / panels) == pytest.approx(size[0] / size[1], rel=0.05)
    guessed = picture[:, -picture.shape[1] // panels :]
    middle = guessed.shape[1] // 2
    assert np.abs(guessed[:, : middle // 2].astype(int) - 90).mean() > 10, 'the left half is tinted'
    assert np.abs(guessed[:, middle + middle // 2 :].astype(int) - 90).mean() < 3


PLACES = {
    'images/a/1.jpg': 'a/1.jpg',
    'images/b/1.jpg': 'b/1.jpg',  # of the same name in another folder
    'images/1.png': '1.png',
    'images/1.bmp': '1.bmp.jpg',
    'elsewhere/2.jpg': '2.jpg',
    'images/../photos/3.jpg': 'photos/3.jpg',  # never outside the folder
}


def test_every_image_has_a_place_of_its_own(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    shown = draw(tmp_path, *(sample_of(tmp_path / image, (40, 60)) for image in PLACES))
    assert {path.relative_to(shown).as_posix() for path in shown.rglob('*.*')} == set(PLACES.values())


def test_validation_shows_every_so_many_iterations(tmp_path: Path) -> None:
    shown: list[tuple[int, tuple[int, ...]]] = []
    runner = runner_of(tmp_path)
    runner.iter, runner.val_loop = 4, runner.test_loop
    runner.visualizer = types.SimpleNamespace(add_image=lambda _, image, step: shown.append((step, image.shape)))
    hook = PicturesHook(draw=True, interval=3)
    sample = sample_of(tmp_path / 'images/a.jpg', (800, 900), truth_size=(80, 90))
    for batch in range(6):
        hook.after_val_iter(runner, batch, None, [sample])
    assert shown == [(6, (800, 1800, 3)), (9, (800, 1800, 3))]
