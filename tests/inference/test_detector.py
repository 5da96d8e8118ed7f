"""The detector: the predictions of tools/test.py, whatever the images, and nothing unsafe or unfit loaded."""

import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from small_models import untrained

from armbench_mmdet.errors import InputError
from armbench_mmdet.inference import Detector, infer, overlay
from armbench_mmdet.launch import evaluate

SUBSET = 'mix-object-tote'


@pytest.fixture(scope='module')
def detector(mask_rcnn: tuple[Config, Path]) -> Detector:
    return Detector(*mask_rcnn, device='cpu')


@pytest.fixture(scope='module')
def images(minibench_root: Path) -> Path:
    return minibench_root / SUBSET / 'images'


def by_file(results: list[dict], images: list[dict]) -> dict[str, list[tuple]]:
    names = {image['id']: Path(image['file_name']).name for image in images}
    found = defaultdict(list)
    for one in results:
        shape = one['segmentation']['counts'] if 'segmentation' in one else tuple(one['bbox'])
        found[names[one['image_id']]].append((one['category_id'], one['score'], shape))
    return found


@pytest.mark.parametrize('name', ['mask_rcnn', pytest.param('mask2former', marks=pytest.mark.slow)])
def test_predictions_are_those_of_tools_test(name: str, minibench_root: Path, tmp_path: Path) -> None:
    config, checkpoint = untrained(name, minibench_root, tmp_path)
    evaluate(config, checkpoint, [SUBSET], 'test', tmp_path / 'test')
    truth = json.loads((minibench_root / SUBSET / 'test.json').read_text())
    files = [minibench_root / SUBSET / 'images' / image['file_name'] for image in truth['images']]
    done = infer(Detector(config, checkpoint, 'cpu'), files[::-1], tmp_path / 'infer', score_threshold=0)
    assert (done.images, done.left_out) == (len(files), {})
    index = json.loads((tmp_path / 'infer/images.json').read_text())
    for iou_type in ('segm', 'bbox'):
        tested = json.loads((tmp_path / f'test/{SUBSET}_test.{iou_type}.json').read_text())
        inferred = json.loads((tmp_path / f'infer/results.{iou_type}.json').read_text())
        assert len(tested) > 20
        assert by_file(inferred, index['images']) == by_file(tested, truth['images'])


def test_images_without_annotations_keep_the_ids_of_their_file(
    detector: Detector, minibench_root: Path, tmp_path: Path
) -> None:
    truth = json.loads((minibench_root / SUBSET / 'test.json').read_text())
    images = [{**image, 'id': 100 + image['id']} for image in truth['images']]
    (tmp_path / 'test.json').write_text(json.dumps({'images': images}))
    (tmp_path / 'images').symlink_to(minibench_root / SUBSET / 'images')
    found = {one.image_id: one.path.name for one in detector.predict(tmp_path / 'test.json')}
    assert found == {image['id']: image['file_name'] for image in images}


def test_batches_give_the_same_instances(detector: Detector, images: Path) -> None:
    files = sorted(images.glob('*.jpg'))[:3]
    one_by_one, together = (list(detector.predict(files, batch_size=size)) for size in (1, 3))
    for a, b in zip(one_by_one, together, strict=True):
        assert len(a) == len(b) > 0
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    with pytest.raises(InputError, match='batch_size must be at least 1, got 0'):
        detector.predict(files, batch_size=0)


def test_worker_processes_give_the_same(detector: Detector, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(images.glob('*.jpg'))[:3]
    expected = [one.masks for one in detector.predict(files)]
    monkeypatch.setitem(detector.config.test_dataloader, 'num_workers', 2)
    assert [one.masks for one in detector.predict(files)] == expected


def test_an_image_is_turned_as_its_orientation_says(detector: Detector, images: Path, tmp_path: Path) -> None:
    upright = Image.open(next(images.glob('*.jpg')))
    upright.save(tmp_path / 'upright.png')
    exif = Image.Exif()
    exif[0x112] = 6  # shown turned by 90° clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'turned.png', exif=exif)
    turned, straight = detector.predict([tmp_path / 'turned.png', tmp_path / 'upright.png'])
    assert (turned.height, turned.width) == (straight.height, straight.width) == upright.size[::-1]
    assert turned.masks == straight.masks
    np.testing.assert_array_equal(overlay(turned), overlay(straight))


@pytest.mark.parametrize('size', [(1, 1), (3, 700), (700, 3), (2500, 40)])
def test_any_size_is_predicted(size: tuple[int, int], detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.full((*size, 3), 99, np.uint8))
    (prediction,) = detector.predict(path)
    assert all(mask['size'] == list(size) for mask in prediction.masks)
    assert overlay(prediction).ndim == 3


def test_an_image_too_narrow_for_the_model_is_reported(detector: Detector, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'image.png'), np.full((1, 5000, 3), 99, np.uint8))
    reported: dict[str, str] = {}
    assert list(detector.predict(tmp_path, report=reported.__setitem__)) == []
    assert list(reported.values()) == ['5000x1 is too narrow: nothing is left at the input size']


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'cpu:x'])
def test_a_device_that_is_not_there_is_refused(device: str, mask_rcnn: tuple[Config, Path]) -> None:
    with pytest.raises(InputError, match=f"device must be .*{device}'"):
        Detector(*mask_rcnn, device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_finds_what_the_cpu_finds(mask_rcnn: tuple[Config, Path], images: Path) -> None:
    on_gpu, on_cpu = (list(Detector(*mask_rcnn, device=device).predict(images)) for device in ('cuda', 'cpu'))
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert len(a) == pytest.approx(len(b), abs=3)
        np.testing.assert_allclose(a.scores[:5], b.scores[:5], atol=1e-2)
