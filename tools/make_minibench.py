"""Make minibench, the procedural data set in ARMBench's folder shape."""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--width', type=int, default=320, help='picture width in pixels (64…2448)')
    parser.add_argument('--height', type=int, default=256, help='picture height in pixels (64…2448)')
    parser.add_argument('--train', type=int, default=400, help='training pictures of mix')
    parser.add_argument('--val', type=int, default=60, help='validation pictures of mix')
    parser.add_argument('--test', type=int, default=60, help='test pictures of each of the three subsets')
    parser.add_argument('--workers', type=int, default=None, help='processes (default: one a CPU core)')
    parser.add_argument('--overwrite', action='store_true', help='replace a complete minibench in OUT')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Make the data set."""
    from armbench_mmdet.errors import InputError
    from armbench_mmdet.minibench.scene import MIX, SUBSETS
    from armbench_mmdet.minibench.writer import is_complete, make_minibench

    if is_complete(args.out) and not args.overwrite:
        raise InputError(f'OUT must not hold a complete minibench unless --overwrite is given, got {str(args.out)!r}')
    counts = {(MIX, 'train'): args.train, (MIX, 'val'): args.val, **{(name, 'test'): args.test for name in SUBSETS}}
    size = {'width_px': args.width, 'height_px': args.height}
    make_minibench(args.out, counts=counts, **size, seed=args.seed, workers=args.workers)
    print(f'minibench is in {args.out}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
