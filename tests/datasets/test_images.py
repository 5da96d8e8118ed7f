"""Which files are taken, what each image is; one that cannot be read is named, or skipped, counted and listed."""

import io
import shutil
from pathlib import Path

import coco_files
import cv2
import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from PIL import Image
from torch import zeros
from torch.utils.data import DataLoader
from transform_samples import smooth_picture

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.datasets.images import decode_image, find_images, image_size, read_image
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.result import read_result

HEIGHT, WIDTH = 64, 80
PICTURE = Image.fromarray(smooth_picture(WIDTH, HEIGHT))


def encoded(image: Image.Image, kind: str, orientation: int | None = None) -> bytes:
    content, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x112] = orientation
    image.save(content, kind, **({'exif': exif} if orientation else {}))
    return content.getvalue()


SOUND = {
    'plain.jpg': (encoded(PICTURE, 'JPEG'), (HEIGHT, WIDTH)),
    'turned.jpg': (encoded(PICTURE, 'JPEG', 6), (WIDTH, HEIGHT)),
    'mirrored.jpg': (encoded(PICTURE, 'JPEG', 2), (HEIGHT, WIDTH)),
    'turned.png': (encoded(PICTURE, 'PNG', 8), (WIDTH, HEIGHT)),
    'turned.tif': (encoded(PICTURE, 'TIFF', 6), (WIDTH, HEIGHT)),
    'grey.jpg': (encoded(PICTURE.convert('L'), 'JPEG'), (HEIGHT, WIDTH)),
    'cmyk.jpg': (encoded(PICTURE.convert('CMYK'), 'JPEG'), (HEIGHT, WIDTH)),
    'alpha.png': (encoded(PICTURE.convert('RGBA'), 'PNG'), (HEIGHT, WIDTH)),
    'palette.png': (encoded(PICTURE.convert('P'), 'PNG'), (HEIGHT, WIDTH)),
    'deep.png': (cv2.imencode('.png', np.asarray(PICTURE)[..., ::-1] * np.uint16(257))[1].tobytes(), (HEIGHT, WIDTH)),
    'one.png': (encoded(Image.new('RGB', (1, 1)), 'PNG'), (1, 1)),
    'web.webp': (encoded(PICTURE, 'WEBP'), (HEIGHT, WIDTH)),
}


@pytest.mark.parametrize('name', SOUND)
def test_the_size_is_that_of_the_decoded_image(name: str, tmp_path: Path) -> None:
    content, size = SOUND[name]
    (tmp_path / name).write_bytes(content)
    assert image_size(content, tmp_path / name) == size
    image = read_image(tmp_path / name)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    if size == (HEIGHT, WIDTH) and name not in ('mirrored.jpg', 'grey.jpg', 'palette.png'):
        assert np.abs(image[..., ::-1].astype(int) - np.asarray(PICTURE)).mean() < 12


LARGE = encoded(PICTURE.resize((800, 640)), 'JPEG')
BROKEN = {
    'empty.jpg': (b'', 'empty file'),
    'text.jpg': (b'not an image at all', 'no image format'),
    'cut.jpg': (LARGE[: len(LARGE) // 2], 'truncated'),
    'cut.png': (encoded(PICTURE, 'PNG')[:-6], 'OpenCV cannot decode'),
    'nowhere.jpg': (None, 'No such file'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_the_reason_why_an_image_is_broken(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f'{message}.*{name}'):
        read_image(tmp_path / name)


@pytest.mark.parametrize('written', ['images\\a.jpg', '..\\..\\upload\\a.jpg', 'images/a.jpg', '../photos/a.jpg'])
def test_a_missing_image_that_lies_nearby_is_named(tmp_path: Path, written: str) -> None:
    there = tmp_path / 'images/a.jpg' if 'photos' not in written else tmp_path / 'a.jpg'
    there.parent.mkdir(exist_ok=True)
    there.write_bytes(SOUND['plain.jpg'][0])
    with pytest.raises(InputError, match='correct file_name') as caught:
        read_image(tmp_path / 'images' / written)
    assert f'{there} is there' in str(caught.value)


def test_an_image_larger_than_pillow_allows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert image_size(SOUND['plain.jpg'][0], tmp_path) == (HEIGHT, WIDTH)
    assert decode_image(SOUND['plain.jpg'][0], tmp_path).shape == (HEIGHT, WIDTH, 3)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = 'b.JPG a.png notes.txt in/c.jpg in/deep/d.tif .hidden/e.jpg in/._f.jpg out/g.jpg'
    for name in names.split():
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'photos' / 'empty').mkdir()
    return tmp_path / 'photos'


INPUTS = [
    (['.'], ['a.png', 'b.JPG', 'in/c.jpg', 'in/deep/d.tif']),
    (['b.JPG', 'a.png'], ['b.JPG', 'a.png']),  # as given
    (['b.JPG', '.'], ['b.JPG', 'a.png', 'in/c.jpg', 'in/deep/d.tif']),  # each once
    (['*.*'], ['a.png', 'b.JPG', 'notes.txt']),  # a pattern means what it says
    (['**/*.tif'], ['in/deep/d.tif']),
    (['**/*.jpg'], ['in/c.jpg']),
    (['in*'], ['in/c.jpg', 'in/deep/d.tif']),
    (['out/g.jpg'], ['out/g.jpg']),  # what is named is taken
    (['out'], ['out/g.jpg']),
    (['in', 'in/../in/c.jpg'], ['in/c.jpg', 'in/deep/d.tif']),
]


@pytest.mark.parametrize(('inputs', 'expected'), INPUTS)
def test_files_folders_and_patterns(tree: Path, inputs: list[str], expected: list[str]) -> None:
    paths = [tree / name for name in inputs]
    found = find_images(paths if len(paths) > 1 else str(paths[0]), skip=tree / 'out')
    assert [path.relative_to(tree).as_posix() for path in found.paths] == expected
    assert found.left_out == {}


@pytest.mark.parametrize('layout', ['images', '.'])
def test_a_coco_file_stands_for_its_images(tree: Path, layout: str) -> None:
    file = tree / 'test.json'
    (tree / layout).mkdir(exist_ok=True)
    images = [{'id': '7', 'file_name': 'b.JPG', 'width': 8, 'height': 8}, {'id': 3, 'file_name': 'in/c.jpg'}]
    with pytest.raises(InputError, match='missing required field `width`'):
        find_images(coco_files.write_json(file, {'images': images}))
    images[1] |= {'width': 8, 'height': 8}
    found = find_images(coco_files.write_json(file, {'images': images}))
    assert (found.paths, found.ids) == ([tree / layout / 'b.JPG', tree / layout / 'in/c.jpg'], [7, 3])
    assert found.ann_file is None
    assert find_images(coco_files.write_json(file, {'images': images, 'annotations': []})).ann_file == file


def test_inputs_without_images_are_named_with_the_reason(tree: Path) -> None:
    found = find_images([tree / 'a.png', tree / 'empty', tree / 'nowhere.jpg', f'{tree}/*.gif'])
    assert found.paths == [tree / 'a.png']
    reasons = [found.left_out[str(tree / name)] for name in ('nowhere.jpg', '*.gif', 'empty')]
    assert reasons[:2] == ['no such file or folder'] * 2
    assert '.jpg' in reasons[2]
    with pytest.raises(InputError, match=r'nowhere\.jpg: no such file.*empty: no \.avif'):
        find_images([tree / 'nowhere.jpg', tree / 'empty'])
    with pytest.raises(InputError, match='got none'):
        find_images([])


PIPELINE = [
    {'type': 'LoadPolygons'},
    {'type': 'LazyResize', 'scale': (80, 64), 'keep_ratio': True},
    {'type': 'RenderImage'},
    {'type': 'PackDetInputs', 'meta_keys': ('img_id', 'img_path', 'ori_shape', 'img_shape')},
]


@pytest.fixture
def root(minibench_root: Path, tmp_path: Path) -> Path:
    """A copy whose train images 1 and 2, and test image 1, are cut off, missing and empty."""
    copy = tmp_path / 'data'
    shutil.copytree(minibench_root, copy)
    first, second = image_paths(copy, 'train')[1:3]
    first.write_bytes(first.read_bytes()[:200])
    second.unlink()
    image_paths(copy, 'test')[1].write_bytes(b'')
    return copy


def dataset(root: Path, split: str, **options) -> ArmbenchDataset:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return ArmbenchDataset(data_root=root, split=split, pipeline=PIPELINE, test_mode=split == 'test', **options)


def image_paths(root: Path, split: str) -> list[Path]:
    data = dataset(root, split)
    return [Path(data.get_data_info(i)['img_path']) for i in range(len(data))]


@pytest.mark.parametrize(('index', 'found'), [(1, 'must be readable'), (2, 'existing file')])
def test_error_names_file_and_index(root: Path, index: int, found: str) -> None:
    name, place = image_paths(root, 'train')[index].name, f'index {index} in the data set; tools/check_data.py --json'
    with pytest.raises(InputError, match=rf'{found}.*{name}.*{place} lists all such files'):
        dataset(root, 'train')[index]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_training_takes_the_next_image_whoever_loads_it(root: Path, num_workers: int) -> None:
    data = dataset(root, 'train', corrupt_images='skip')
    loader = DataLoader(data, batch_size=None, num_workers=num_workers)
    names = [Path(sample['data_samples'].img_path).name for sample in loader]
    paths = image_paths(root, 'train')
    expected = [0, 3, 3, 3, 4, 5]
    assert names == [paths[index].name for index in expected]
    assert data.unreadable_images() == [str(path) for path in paths[1:3]]


def test_nothing_readable_is_an_error(root: Path) -> None:
    for path in (root / 'mix-object-tote/images').iterdir():
        path.write_bytes(b'no image')
    with pytest.raises(InputError, match='got none of 6'):
        dataset(root, 'train', corrupt_images='skip')[0]


def test_evaluation_counts_it_as_without_detections_and_lists_it(root: Path, tmp_path: Path) -> None:
    data = dataset(root, 'test', corrupt_images='skip')
    file = tmp_path / 'results/mix-object-tote_test.json'
    evaluator = Evaluator([ArmbenchMetric(metric='bbox', result_file=str(file))])
    evaluator.dataset_meta = data.metainfo
    for sample in data:
        found = sample['data_samples']
        assert found.ori_shape == (128, 160)
        found.pred_instances = InstanceData(bboxes=zeros(3, 4) + 5, labels=zeros(3, dtype=int), scores=zeros(3) + 0.5)
        evaluator.process([found], {})
    evaluator.evaluate(len(data))
    result = read_result(file)
    assert result.images.unreadable == [str(image_paths(root, 'test')[1])]
    assert (result.images.ground_truth, result.images.not_seen) == (4, 0)
    assert result.detections == 9
    assert data.unreadable_images() == result.images.unreadable
