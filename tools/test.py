"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [--subset NAME|all] [--split val|test] …``."""

import argparse
import os
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint', allow_abbrev=False)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file, or a run folder (its latest checkpoint)')
    parser.add_argument('--selftest', action='store_true', help='only check that ground truth scores 1.0')
    parser.add_argument('--subset', help="a subset's folder name, or all (default: the config's)")
    parser.add_argument('--split', choices=['val', 'test'], help="default: the config's, test")
    parser.add_argument('--work-dir', help='folder for logs (default: work_dirs/<config name>)')
    parser.add_argument('--data-root', help='folder that holds the subsets (default: ARMBENCH_ROOT, or the config)')
    parser.add_argument(
        '--out', help="folder for the result files (default: results in the checkpoint's run, else in the work dir)"
    )
    parser.add_argument(
        '--tta',
        nargs='*',
        type=float,
        metavar='SCALE',
        help='test in views of these scales (default: 1), each also flipped, and merge them',
    )
    parser.add_argument(
        '--corruptions', action='store_true', help='test under 18 corruptions of 5 severities instead (hours)'
    )
    parser.add_argument('--show-dir', help='folder for images with the predictions drawn')
    parser.add_argument('--trust-checkpoint', action='store_true', help='load a file that can run code')
    armbench_cli.add_levers(parser)
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override config keys')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()  # CONFIG --option CHECKPOINT, too
    if args.checkpoint is None and not args.selftest:
        parser.error('CHECKPOINT must be given, unless --selftest is')
    if args.corruptions and args.launcher != 'none':
        parser.error('--corruptions is for one process: leave --launcher out')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from armbench_mmdet import configs
    from armbench_mmdet.datasets.release import SUBSETS
    from armbench_mmdet.engine.checkpoints import find_checkpoint
    from armbench_mmdet.engine.distributed import joined_processes
    from armbench_mmdet.engine.levers import set_levers
    from armbench_mmdet.launch import corruption_table, evaluate, evaluate_corrupted, selftest, set_tta
    from armbench_mmdet.report.tables import Table, main_scores
    from armbench_mmdet.run_folder import CORRUPTIONS, RECORD, RESULTS

    config = configs.load_config(args.config, configs.parse_options(args.cfg_options))
    work_dir = configs.set_work_dir(config, args.work_dir)
    if args.data_root:
        configs.set_data_root(config, args.data_root)
    if args.show_dir:
        config.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
    if args.trust_checkpoint:
        config.trust_checkpoint = True
    set_levers(config, args.amp, args.channels_last, args.compile)
    if args.tta is not None:
        set_tta(config, args.tta or [1.0])
    subsets = SUBSETS if args.subset == 'all' else (args.subset,)
    if args.selftest:
        for subset in subsets:
            print(selftest(config, subset, args.split))
        return
    checkpoint = find_checkpoint(args.checkpoint)
    is_of_a_run = (checkpoint.parent / RECORD).is_file() and not args.work_dir
    run = checkpoint.parent if is_of_a_run else work_dir
    if args.tta is not None:
        run = run.with_name(f'{run.name}_tta')  # a row of its own in the report
    if args.corruptions:
        for subset in subsets:
            found = evaluate_corrupted(config, checkpoint, subset, args.split, Path(args.out or run / CORRUPTIONS))
            print(f'\n{found.subset} {found.split}\n\n{corruption_table(found)}')
        return
    out_dir = Path(args.out or run / RESULTS)
    with joined_processes(config, args.launcher):
        results = evaluate(config, checkpoint, subsets, args.split, out_dir)
        if results:  # only one process has them
            trained_on = configs.training_subsets(config)
            about = {subset: {'trained on': trained_on, 'tested on': subset} for subset in results}
            rows = [{**about[subset], **main_scores(result)} for subset, result in results.items()]
            print(Table.of('Results', rows, 2).markdown())
            print(f'\nresult files: {out_dir}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
