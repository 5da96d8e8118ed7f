"""Images that cannot be read: an error that names them, or skipped, counted and listed."""

import shutil
from pathlib import Path

import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import zeros
from torch.utils.data import DataLoader

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.evaluation.result import read_result

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
        found.pred_instances = InstanceData(
            bboxes=zeros(3, 4) + 5, labels=zeros(3, dtype=int), scores=zeros(3) + 0.5, masks=zeros(3, 128, 160).bool()
        )
        evaluator.process([found], {})
    evaluator.evaluate(len(data))
    result = read_result(file)
    assert result.images.unreadable == [str(image_paths(root, 'test')[1])]
    assert (result.images.ground_truth, result.images.not_seen) == (4, 0)
    assert result.detections == 9
    assert data.unreadable_images() == result.images.unreadable
