"""Hooks that only look on: a run's record, the progress line, timing beside the evaluation, pictures of predictions."""

import hashlib
import io
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from coco_random import META, as_samples, random_dataset, truth_of
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn
from toy_run import AtIteration, Points, guarded_runner

from armbench_mmdet import system
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.hooks import speed
from armbench_mmdet.hooks.prediction_pictures import PicturesHook
from armbench_mmdet.hooks.progress import ProgressHook
from armbench_mmdet.run_folder import read_record


def run(work_dir: Path, iterations: int, **options: Any) -> Any:
    """The record after a run, which goes on where there is an earlier one."""
    earlier = work_dir / f'iter_{iterations - 1}.pth'
    resume = {'resume': True, 'load_from': str(earlier)} if earlier.exists() else {}
    guarded_runner(work_dir, iterations, **resume, **options).train()
    return read_record(work_dir)


def test_finished_run_says_what_it_was_and_on_which_data(tmp_path: Path) -> None:
    annotations = tmp_path / 'train.json'
    annotations.write_text('{}')
    data: Any = Points()
    data.metainfo, data.unreadable_images = GroundTruthSource(str(annotations)).as_metainfo(), lambda: ['images/3.jpg']
    begun: list[Any] = []
    written = run(tmp_path, 2, data=data, hooks=[AtIteration(1, lambda: begun.append(read_record(tmp_path)))])
    assert (begun[0].status, begun[0].attempts[0].ended) == ('running', None)
    assert (written.seed, written.status, written.message) == (3, 'finished', None)
    assert written.config.endswith('toy.py')
    assert written.data == {str(annotations): f'sha256:{hashlib.sha256(b"{}").hexdigest()}'}
    (attempt,) = written.attempts
    assert (attempt.start_iter, attempt.end_iter, attempt.world_size, attempt.resumed_from) == (0, 2, 1, None)
    assert attempt.started <= attempt.ended
    assert attempt.started.endswith('+00:00')
    assert 'pytest' in attempt.command
    assert {'torch', 'onedl-mmdetection'} <= attempt.versions.keys()
    assert attempt.hardware['cores'] >= 1
    assert attempt.hardware['memory_mb'] > 100
    assert attempt.unreadable_images == ['images/3.jpg']


@pytest.mark.parametrize(('error', 'ending'), [(ZeroDivisionError, 'failed'), (KeyboardInterrupt, 'stopped')])
def test_resumed_run_adds_an_attempt(tmp_path: Path, error: type[BaseException], ending: str) -> None:
    def fail() -> None:
        raise error

    runner = guarded_runner(tmp_path, hooks=[AtIteration(2, fail)])
    with pytest.raises(error), explained_failures(runner):
        runner.train()
    assert read_record(tmp_path).status == ending
    run(tmp_path, 2)
    written = run(tmp_path, 3)
    assert written.status == 'finished'
    attempts = [(attempt.start_iter, attempt.resumed_from) for attempt in written.attempts]
    assert attempts == [(0, None), (2, str(tmp_path / 'iter_2.pth'))]


@pytest.mark.parametrize(('name', 'content', 'is_said'), [('moved.json', '{}', False), ('train.json', '[]', True)])
def test_a_run_resumed_on_other_annotations_says_so(tmp_path: Path, capsys, name, content, is_said) -> None:
    for file, text, iterations in (('train.json', '{}', 1), (name, content, 2)):
        (tmp_path / file).write_text(text)
        data = Points()
        data.metainfo = GroundTruthSource(str(tmp_path / file)).as_metainfo()
        run(tmp_path / 'run', iterations, data=data)
    warning = f'resumed on other annotations than before: {tmp_path / name}'
    assert (warning in capsys.readouterr().out) is is_said


def test_record_that_cannot_be_written_is_a_warning(tmp_path: Path, capsys) -> None:
    (tmp_path / 'record.json').mkdir()
    guarded_runner(tmp_path, iterations=1).train()
    assert 'warning: no record of this run' in capsys.readouterr().out


def git(folder: Path, *arguments: str) -> None:
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    subprocess.run(['git', '-C', str(folder), *identity, *arguments], check=True, capture_output=True)


def test_changes_of_a_checkout_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, work_dir = tmp_path / 'checkout', tmp_path / 'run'
    files = {checkout / 'package/a.py': 'a = 2\n', checkout / 'new.py': 'b = 3\n'}
    (checkout / 'package').mkdir(parents=True)
    (checkout / 'package/a.py').write_text('a = 1\n')
    git(checkout, 'init')
    git(checkout, 'add', '.')
    git(checkout, 'commit', '-m', 'first')
    revision, patch = system.git_state(checkout / 'package')
    assert (len(revision or ''), patch) == (40, '')
    for path, text in files.items():
        path.write_text(text)
    monkeypatch.setattr('armbench_mmdet.hooks.run_record.git_state', lambda: system.git_state(checkout / 'package'))
    written = run(work_dir, 1).attempts[0].git
    assert (written.revision, written.diff) == (revision, 'git.diff')
    git(checkout, 'stash', '--include-untracked')
    git(checkout, 'apply', str(work_dir / 'git.diff'))
    assert {path: path.read_text() for path in files} == files


def test_without_git_or_a_checkout_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.git_state(tmp_path) == (None, '')
    monkeypatch.setenv('PATH', '')
    assert system.git_state() == (None, '')


def lines_of(monkeypatch: pytest.MonkeyPatch, is_terminal: bool = False, **options: Any) -> list[str]:
    """Two iterations, a validation that prints, two iterations; what was written, line by line."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, 'isatty', lambda: is_terminal)
    monkeypatch.setattr('sys.stderr', stream)
    hub = MessageHub('progress')
    runner: Any = SimpleNamespace(max_iters=4, iter=0, message_hub=hub, val_dataloader=[None] * 2)
    hook = ProgressHook(**options)
    hook.before_train(runner)
    for iteration in range(4):
        hub.update_scalar('train/loss', 4.0 - iteration)
        hook.after_train_iter(runner, iteration)
        if iteration == 1:
            hook.before_val_epoch(runner)
            for batch in range(2):
                hook.after_val_iter(runner, batch)
            stream.write('a table\n')
            hook.after_val_epoch(runner, {'coco/segm_mAP': 0.25})
    hook.after_train(runner)
    return stream.getvalue().split('\n')


def test_in_a_file_every_line_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(monkeypatch) == ['a table', ''], 'a line now and then'
    lines = lines_of(monkeypatch, line_interval_s=0.0)
    assert not any(character in line for line in lines for character in '\r\x1b')
    assert 'a table' in lines
    training = [line for line in lines if line.startswith('train:')]
    assert all('ETA ' in line for line in training)
    assert any(' 2/4 ' in line and line.endswith('loss=3.000]') for line in training)
    assert ' 4/4 ' in training[-1]
    assert training[-1].endswith('loss=1.000, segm_mAP=0.250]')


def test_on_a_terminal_prints_do_not_run_into_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(monkeypatch, is_terminal=True)
    assert not any('\x1b' in line for line in lines), 'one bar at a time, so the cursor never moves up'
    table, training, _ = (line.rpartition('\r')[2] for line in lines)  # drawn last
    assert table == 'a table'
    assert training.startswith('train: 100%|')
    assert 'ETA 00:00' in training
    assert training.endswith('loss=1.000, segm_mAP=0.250]')


class Backbone(nn.Linear):
    """Has a forward pass that torch compiles."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).relu()


class Detector(nn.Module):
    """On the given clock, 0.3 s beside its head, but for the first batch, which takes nine; its head takes 0.1 s."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, iter([9.0, 0.3])
        self.backbone, self.bbox_head = Backbone(3, 3), nn.Linear(3, 2)
        self.bbox_head.predict_by_feat = lambda: self.pass_by(0.1)

    def pass_by(self, seconds: float) -> None:
        self.clock[0] += seconds

    def test_step(self, batch: list[dict]) -> None:
        self.bbox_head(self.backbone(torch.ones(len(batch), 3)))
        self.pass_by(next(self.seconds))
        self.bbox_head.predict_by_feat()

    val_step = test_step


@pytest.mark.parametrize('mode', ['test', 'val'])
def test_the_hook_times_stages_of_batches_after_the_warm_up(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, detections = random_dataset(1)
    samples = as_samples(truth, detections)
    metric = ArmbenchMetric(ground_truth=truth_of(truth))
    metric.dataset_meta = META
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric]))
    clock = [0.0]
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: clock[0])
    model, compiled = Detector(clock), []
    model.backbone.compile(backend=lambda graph, inputs: compiled.append(graph) or graph)
    runner: Any = SimpleNamespace(model=model, **{f'{mode}_loop': loop})
    hook = speed.SpeedHook(warmup=1)
    getattr(hook, f'before_{mode}_epoch')(runner)
    for number, batch in enumerate((samples[:2], samples[2:])):
        clock[0] += 0.06
        getattr(hook, f'before_{mode}_iter')(runner, number)
        getattr(model, f'{mode}_step')(batch)
        metric.process({}, batch)
        getattr(hook, f'after_{mode}_iter')(runner, number, outputs=batch)
    getattr(hook, f'after_{mode}_epoch')(runner)
    metric.evaluate(len(samples))
    result = metric.result.speed
    assert result.images == len(samples[2:]) == 2
    assert [result.median_ms, result.p95_ms] == pytest.approx([200, 200])
    assert [one.median_ms for one in result.per_density.values()] == pytest.approx([200] * len(result.per_density))
    assert result.peak_memory_mb > 10
    assert (bool(result.device), result.threads) == (True, torch.get_num_threads())
    medians = {name: one.median_ms for name, one in result.stages.items()}
    assert medians == pytest.approx({'load': 30, 'forward': 150, 'post-process': 50})
    assert (result.parameters, result.gflops) == ((20, 30 / 1e9) if mode == 'test' else (None, None))
    assert compiled, 'compiled in spite of the counting'
    assert f'{mode}_step' not in vars(model)


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
    dataset = SimpleNamespace(metainfo={'classes': ('tote', 'object'), **source.as_metainfo()})
    return SimpleNamespace(test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))


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
    runner.visualizer = SimpleNamespace(add_image=lambda _, image, step: shown.append((step, image.shape)))
    hook = PicturesHook(draw=True, interval=3)
    sample = sample_of(tmp_path / 'images/a.jpg', (800, 900), truth_size=(80, 90))
    for batch in range(6):
        hook.after_val_iter(runner, batch, None, [sample])
    assert shown == [(6, (800, 1800, 3)), (9, (800, 1800, 3))]
