"""A real run, tiny, through training, testing and the report: what the parts write is what the report reads."""

from pathlib import Path

import pytest

from armbench_mmdet import configs
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.engine.checkpoints import find_checkpoint
from armbench_mmdet.launch import evaluate, train
from armbench_mmdet.report.page import gather, write_report
from armbench_mmdet.report.plots import loss_plot

LEAF = Path(__file__).resolve().parents[2] / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'


@pytest.mark.slow
def test_a_run_is_reported_without_a_complaint(minibench_root: Path, tmp_path: Path) -> None:
    config = configs.load_config(LEAF)
    configs.set_data_root(config, minibench_root)
    work_dir = configs.set_work_dir(config, tmp_path / 'run')
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.default_hooks.checkpoint.interval = 2
    config.default_hooks.logger.interval = 1
    config.param_scheduler = config.param_scheduler[:1]
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    train(config)
    evaluate(config, find_checkpoint(work_dir), SUBSETS, 'test', work_dir / 'results')

    report = gather([work_dir])
    assert report.problems == []
    assert report.is_procedural
    assert report.parts['runs'][0].rows[0][1] == 'finished'
    assert [comparison.title for comparison in report.compared] == [f'{subset}, test' for subset in SUBSETS]
    assert {picture.data for picture in report.pictures} == {f'{subset} test' for subset in SUBSETS}
    curves = {(trace['name'], trace['line']['dash']) for trace in loss_plot(report.runs[0]).data}
    assert {('loss_mask', 'solid'), ('loss_mask', 'dash')} <= curves
    assert write_report(report, tmp_path / 'report').stat().st_size < 12e6
