"""Curves for TensorBoard by default, for W&B and MLflow by one option."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from armbench_mmdet import configs
from armbench_mmdet.engine import live_view
from armbench_mmdet.errors import InputError
from armbench_mmdet.launch.train import build_runner, train

REPO = Path(__file__).resolve().parents[2]
LEAF = REPO / 'configs/mask2former/mask2former_r18-w32_q30_minibench.py'

RECORDER = """
calls = []

class MlflowException(Exception):
    pass

def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    def call(*args, **kwargs):
        calls.append((name, args, kwargs))
    call.update = call.log_code = call
    return call
"""


def option(backend: str) -> Config:
    return configs.load_config(LEAF, configs.parse_options([f'visualizer.vis_backends.1.type={backend}']))


@pytest.fixture
def recorder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The calls made to a stand-in for the package named by the test's parameter."""
    package = request.getfixturevalue('package')
    (tmp_path / f'{package}.py').write_text(RECORDER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    module = __import__(package)
    yield module.calls
    del sys.modules[package]


@pytest.mark.slow
def test_event_files_can_be_read_back(minibench_root: Path, tmp_path: Path) -> None:
    for run in ('first', 'second'):  # in one process, each keeps to its own folder
        config = configs.load_config(LEAF)
        configs.set_data_root(config, minibench_root)
        configs.set_work_dir(config, tmp_path / run)
        config.train_cfg.update(max_iters=2, val_interval=1)
        config.param_scheduler = config.param_scheduler[:1]
        config.default_hooks.logger.interval = 1
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        train(config)
    for run in ('first', 'second'):
        (file,) = (tmp_path / run).glob('*/vis_data/events.out.tfevents.*')
        events = EventAccumulator(str(file)).Reload()
        for name in ('loss', 'loss_mask', 'lr', 'val_loss/loss', 'coco/segm_mAP'):
            assert [event.step for event in events.Scalars(name)] == [1, 2], name
        assert len(list((tmp_path / run).glob('*/vis_data/scalars.json'))) == 1


@pytest.mark.parametrize(
    ('backend', 'package'),
    [('WandbVisBackend', 'wandb'), ('MLflowBackend', 'mlflow'), ('TensorboardVisBackend', 'tensorboard')],
)
def test_missing_package_is_named_with_its_remedy(
    backend: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_view, 'find_spec', lambda name: None)
    config = option(backend)
    configs.set_work_dir(config, tmp_path)
    config.experiment_name = tmp_path.name
    with pytest.raises(InputError, match=f"vis_backends must .*, got '{backend}'; run: pip install {package}$"):
        build_runner(config)


@pytest.mark.parametrize(
    ('backend', 'package', 'call'), [('WandbVisBackend', 'wandb', 'log'), ('MLflowBackend', 'mlflow', 'log_metrics')]
)
def test_one_option_sends_the_curves_elsewhere(
    backend: str, package: str, call: str, tmp_path: Path, recorder: list[tuple]
) -> None:
    init_default_scope('mmdet')
    config = option(backend)
    configs.set_work_dir(config, tmp_path / 'work_dirs' / 'run')
    live_view.check_packages(config.visualizer)
    settings = {**config.visualizer, 'save_dir': str(tmp_path / 'work_dirs' / 'run' / '20260101_000000')}
    visualizer = Visualizer.get_instance(f'{package}-test', **{k: v for k, v in settings.items() if k != 'type'})
    visualizer.add_config(config)
    visualizer.add_scalars({'loss': 1.5, 'val_loss/loss': 2.0}, step=3)
    visualizer.close()
    sent = [args[0] for name, args, _ in recorder if name == call]
    assert {'loss': 1.5, 'val_loss/loss': 2.0} in sent
    assert next(tmp_path.rglob('scalars.json')).read_text().count('val_loss/loss') == 1, 'the log stays'
    if package == 'mlflow':
        made = {name: args for name, args, _ in recorder}
        assert made['set_tracking_uri'] == (f'sqlite:///{tmp_path}/work_dirs/mlflow.db',)
        assert made['set_experiment'] == ('armbench-mmdet',)
        assert made['set_tag'] == ('mlflow.runName', 'run')


def test_mlflow_goes_where_its_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://mlflow.example:5000')
    backend = live_view.MLflowBackend(str(tmp_path / 'run' / '20260101_000000' / 'vis_data'), exp_name='mine')
    assert (backend._tracking_uri, backend._artifact_location) == ('http://mlflow.example:5000', None)
    assert (backend._exp_name, backend._run_name) == ('mine', 'run')
