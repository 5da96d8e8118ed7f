"""Train a model: ``python tools/train.py CONFIG [--work-dir D] [--resume [auto|PATH]] …``, as in mmdet."""

import argparse
import os

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a model', allow_abbrev=False)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument('--data-root', help='folder that holds the subsets (default: ARMBENCH_ROOT, or the config)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from the latest checkpoint of the work directory, or from the one given',
    )
    parser.add_argument('--trust-checkpoint', action='store_true', help='load files that can run code')
    armbench_cli.add_levers(parser)
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override config keys')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from armbench_mmdet import configs
    from armbench_mmdet.engine.distributed import joined_processes
    from armbench_mmdet.engine.levers import set_levers
    from armbench_mmdet.launch import set_resume, train

    config = configs.load_config(args.config, configs.parse_options(args.cfg_options))
    configs.set_work_dir(config, args.work_dir)
    if args.data_root:
        configs.set_data_root(config, args.data_root)
    if args.trust_checkpoint:
        config.trust_checkpoint = True
    set_levers(config, args.amp, args.channels_last, args.compile, training=True)
    if args.auto_scale_lr:
        config.merge_from_dict({'auto_scale_lr.enable': True})
    if args.resume:
        set_resume(config, args.resume)
    with joined_processes(config, args.launcher):
        train(config)


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
