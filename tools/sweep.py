"""Search for better settings: ``python tools/sweep.py SWEEP_CONFIG [--study NAME] [--storage URL] [--workers N] …``.

The same command, on any number of machines with the same ``--storage``, fills one study; given again, it resumes it.
"""

import argparse
import sys
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('space', metavar='SWEEP_CONFIG', help='search space, a file of configs/sweeps')
    parser.add_argument('--study', help="name of the study (default: the search space's file name)")
    parser.add_argument('--work-dir', type=Path, help='folder for the trials (default: work_dirs/sweeps/<study>)')
    parser.add_argument(
        '--storage',
        help='path of a journal file, which may lie on a network disk, or postgresql://user:password@host/database, or '
        'mysql://… (default: <work dir>/journal.log)',
    )
    parser.add_argument('--n-trials', type=int, help="trials the study is to have (default: the search space's)")
    parser.add_argument('--workers', type=int, help='trainings at a time on this machine (default: one per --devices)')
    parser.add_argument(
        '--devices',
        nargs='+',
        metavar='GPU',
        help='a GPU index for each worker, given out in turn; 0,1 is one distributed training on two',
    )
    parser.add_argument(
        '--retrain-best', action='store_true', help="train the best trial's settings at full length, without `fixed`"
    )
    parser.add_argument('--trial', type=int, metavar='N', help='with --retrain-best: this trial instead of the best')
    args = parser.parse_args()
    if args.trial is not None and not args.retrain_best:
        parser.error('--trial belongs to --retrain-best')
    for name in ('n_trials', 'workers'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    return args


def main(args: argparse.Namespace) -> int:
    """Run the tool."""
    from mmengine.logging import MMLogger

    import armbench_mmdet  # noqa: F401 - before mmdet
    from armbench_mmdet.engine.runner import quiet_console
    from armbench_mmdet.sweep.space import load_space
    from armbench_mmdet.sweep.workers import Sweep

    quiet_console(MMLogger.get_instance('sweep'))
    space = load_space(args.space)
    study = args.study or space.file.stem
    folder = args.work_dir or Path('work_dirs/sweeps') / study
    devices = args.devices or [None]
    sweep = Sweep(
        space,
        study,
        storage=args.storage or str(folder / 'journal.log'),
        folder=folder,
        command=(sys.executable, str(Path(__file__).with_name('train.py'))),
        n_trials=args.n_trials or space.given.n_trials,
        devices=[devices[index % len(devices)] for index in range(args.workers or len(devices))],
    )
    if args.retrain_best:
        sweep.retrain(args.trial)
    return 0 if sweep.run() else 130


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
