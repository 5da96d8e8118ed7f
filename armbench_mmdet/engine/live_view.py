"""Curves to watch while a run goes on: the packages that mmengine's backends need, and a store for MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmdet.registry import VISBACKENDS
from mmengine.visualization import MLflowVisBackend

from armbench_mmdet.errors import InputError

_PACKAGES = {
    'TensorboardVisBackend': 'tensorboard',
    'WandbVisBackend': 'wandb',
    'MLflowBackend': 'mlflow',
    'MLflowVisBackend': 'mlflow',
}


def check_packages(visualizer: Mapping[str, Any]) -> None:
    """Check that the backends of a visualizer can be imported, before anything else is built.

    Raises:
        InputError: A package is missing; the message has the command that installs it.
    """
    types = [backend['type'] for backend in visualizer.get('vis_backends') or ()]
    missing = {kind: _PACKAGES[kind] for kind in types if kind in _PACKAGES and find_spec(_PACKAGES[kind]) is None}
    if missing:
        raise InputError(
            'visualizer.vis_backends must name backends whose packages are installed, got '
            f'{", ".join(map(repr, missing))}; run: pip install {" ".join(missing.values())}'
        )


@VISBACKENDS.register_module()
class MLflowBackend(MLflowVisBackend):
    """mmengine's MLflow backend with one database for all runs; MLflow 3 refuses the folders of the original.

    The database is ``MLFLOW_TRACKING_URI`` where that is set, else ``mlflow.db`` beside the run's folder, with the
    files of the runs in ``mlruns``.

    Args:
        save_dir: ``<work_dir>/<timestamp>/vis_data``, as the visualizer gives it.
        **kwargs: As for :class:`mmengine.visualization.MLflowVisBackend`. The experiment is called
            ``armbench-mmdet`` and the run like its folder, unless given.
    """

    def __init__(self, save_dir: str, **kwargs: Any) -> None:
        work_dir = Path(save_dir).resolve().parents[1]
        store = os.environ.get('MLFLOW_TRACKING_URI')
        defaults = {
            'exp_name': 'armbench-mmdet',
            'run_name': work_dir.name,
            'tracking_uri': store or f'sqlite:///{work_dir.parent / "mlflow.db"}',
            'artifact_location': None if store else (work_dir.parent / 'mlruns').as_uri(),
        }
        super().__init__(save_dir, **{**defaults, **kwargs})
