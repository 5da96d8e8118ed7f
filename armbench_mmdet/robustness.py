"""Harder tests of a checkpoint: several views of an image, and corrupted photos."""

import copy
from collections.abc import Sequence
from pathlib import Path

import msgspec
from mmengine.config import Config, ConfigDict
from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.configs import unwrapped
from armbench_mmdet.engine.failure import explained_failures
from armbench_mmdet.errors import InputError
from armbench_mmdet.files import sha256_of, write_atomically
from armbench_mmdet.launch import evaluation_config, on_data, test_loop, tester
from armbench_mmdet.run_folder import Corruptions, read_corruptions
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES


def set_tta(config: Config, scales: Sequence[float]) -> None:
    """Test in views of each scale, each as it is and flipped, and merge them (``--tta``); in place.

    Raises:
        InputError: A scale is not positive, or the test pipeline does not resize.
    """
    if not all(scale > 0 for scale in scales):
        raise InputError(f'--tta must have scales above 0, got {list(scales)}')
    for dataset in unwrapped(config.test_dataloader.dataset):
        steps = list(dataset.pipeline)
        place = next((i for i, step in enumerate(steps) if step['type'].endswith('Resize') and 'scale' in step), None)
        if place is None:
            raise InputError(
                f'--tta must find a step that resizes in the test pipeline, got none (in {config.filename})'
            )
        resize, *others, pack = steps[place:]
        sizes = [{**resize, 'scale': tuple(round(side * scale) for side in resize['scale'])} for scale in scales]
        flips = [{'type': 'LazyRandomFlip', 'prob': prob} for prob in (0.0, 1.0)]
        pack = {**pack, 'meta_keys': (*pack['meta_keys'], 'flip', 'flip_direction')}
        views = [sizes, flips, *([one] for one in others), [pack]]
        dataset.pipeline = [*steps[:place], {'type': 'TestTimeAug', 'transforms': views}]
    config.model = ConfigDict(type='MaskTTAModel', module=config.model)


def evaluate_corrupted(
    config: Config, checkpoint: Path, subset: str | None, split: str | None, out_dir: Path
) -> Corruptions:
    """Evaluate a checkpoint on a subset under every corruption and severity, into ``<subset>_<split>.json``.

    What was measured of the same checkpoint before is kept, so that it goes on where it was stopped.

    Raises:
        InputError: As for :func:`~armbench_mmdet.launch.evaluate`.
    """
    config = evaluation_config(on_data(config, subset, split))
    config.test_evaluator = {'type': 'ArmbenchMetric', 'metric': 'segm', 'log_table': False}
    runner = tester(config, checkpoint)

    def scores(corruption: str, severity: int) -> dict[str, float | None]:
        changed = copy.deepcopy(config)
        for dataset in unwrapped(changed.test_dataloader.dataset):
            step = {'type': 'CorruptImage', 'corruption': corruption, 'severity': severity}
            dataset.pipeline.insert(len(dataset.pipeline) - 1, step)
        loop, metric = test_loop(runner, changed)
        with explained_failures(runner):
            loop.run()
        assert metric.result is not None
        segm = metric.result.scores['segm']
        return {'mean': segm.mAP, **{name: one.mAP for name, one in segm.per_class.items()}}

    _, metric = test_loop(runner, config)
    source, digest = metric.source, sha256_of(checkpoint)
    path = out_dir / f'{source.subset}_{source.split}.json'
    found = read_corruptions(path) if path.is_file() else None
    if found is None or found.checkpoint_sha256 != digest:
        found = Corruptions(
            config=str(config.filename),
            checkpoint_sha256=digest,
            subset=source.subset,
            split=source.split,
            clean=scores(CORRUPTIONS[0], 0),
            corrupted={},
        )
    left = [name for name in CORRUPTIONS if name not in found.corrupted]
    for name in tqdm(left, desc='corruptions', initial=len(CORRUPTIONS) - len(left), total=len(CORRUPTIONS)):
        found.corrupted[name] = [scores(name, severity) for severity in SEVERITIES]
        out_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(found)) + b'\n')
    runner.call_hook('after_run')
    return found


def corruption_table(found: Corruptions) -> str:
    """The mask mAP of objects under each corruption and severity, and the means of all classes, in percent."""
    rows = [
        [name, *(f'{100 * (one["object"] or 0):.1f}' for one in scores)] for name, scores in found.corrupted.items()
    ]
    lines = [tabulate(rows, ['object mask mAP', *map(str, SEVERITIES)], disable_numparse=True), '']
    for name, clean in found.clean.items():
        if clean is not None:  # a class that the subset does not annotate
            mean, share = found.performance(name)
            lines.append(
                f'{name}: clean {100 * clean:.1f}, under corruption {100 * mean:.1f} ({100 * share:.0f} % of it)'
            )
    return '\n'.join(lines)
