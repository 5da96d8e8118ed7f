"""The ways to a checkpoint read it safely, unless told to trust it; tests/launch gives one to the command lines."""

import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from small_models import Attack
from toy_run import ToyModel, run, toy_config

from armbench_mmdet.engine.checkpoints import load_weights, local_file, safe_loaders
from armbench_mmdet.errors import InputError

load_by_mmengine = CheckpointLoader.load_checkpoint


def test_only_a_run_of_ours_loads_safely(tmp_path: Path) -> None:
    torch.save({'a': torch.ones(2), 'extra': Attack(tmp_path / 'made')}, tmp_path / 'evil.pth')
    with pytest.raises(InputError, match='could run code'), safe_loaders():
        load_by_mmengine(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'made').exists()
    load_by_mmengine(str(tmp_path / 'evil.pth'))
    assert (tmp_path / 'made').exists(), 'elsewhere mmengine loads as it always does'


@pytest.mark.parametrize('name', ['s3://bucket/a.pth', 'pavi://a', 'mmcls://resnet50', 'open-mmlab://no-such-model'])
def test_what_cannot_be_loaded_safely_is_refused(name: str) -> None:
    with pytest.raises(InputError, match='must be a path, a URL or a known name'):
        local_file(name)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Downloads without a network: every URL gives the file ``remote.pth``; the list holds the URLs asked for."""
    urls: list[str] = []

    def download(url: str, target: str, *args: Any) -> None:
        urls.append(url)
        shutil.copy(tmp_path / 'remote.pth', target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    return urls


@pytest.mark.parametrize(
    'name', ['https://zoo.org/a/model-1234.pth?b=c', 'torchvision://resnet50', 'open-mmlab://detectron2/resnet50_caffe']
)
def test_zoo_weights_are_downloaded_once_and_read_safely(name: str, downloads: list[str], tmp_path: Path) -> None:
    torch.save({'a': torch.ones(2)}, tmp_path / 'remote.pth')
    for _ in range(2):
        assert list(load_weights(local_file(name))) == ['a']
    assert len(downloads) == 1
    assert downloads[0].startswith('https://')
    next((tmp_path / 'hub/checkpoints').iterdir()).unlink()
    torch.save({'a': Attack(tmp_path / 'made')}, tmp_path / 'remote.pth')
    with pytest.raises(InputError, match='could run code'), safe_loaders():
        load_by_mmengine(name)
    assert not (tmp_path / 'made').exists()


def test_a_failed_download_says_where_the_file_belongs(downloads: list[str], monkeypatch) -> None:
    def unreachable(*args: Any) -> None:
        raise URLError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
    with pytest.raises(InputError, match=r'no route to host.*Save it as .*hub/checkpoints/m\.pth'):
        local_file('https://zoo.org/m.pth')


def test_safetensors_are_weights_to_start_from_and_not_to_resume_from(tmp_path: Path) -> None:
    state = {name: torch.full_like(value, 2) for name, value in ToyModel().state_dict().items()}
    save_file(state, tmp_path / 'model.safetensors')
    config = toy_config(tmp_path / 'run')
    config.optim_wrapper.optimizer.lr = 0.0
    config.optim_wrapper.optimizer.weight_decay = 0.0
    config.load_from = str(tmp_path / 'model.safetensors')
    runner = run(config)
    assert torch.equal(runner.model.net[0].weight.data, state['net.0.weight'])
    with pytest.raises(InputError, match='it holds no meta, message_hub, optimizer'):
        run(toy_config(tmp_path / 'run'), str(tmp_path / 'model.safetensors'))
