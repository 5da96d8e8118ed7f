"""Make minibench, the procedural data set in ARMBench's folder shape."""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, nargs='?', help='folder to make')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--width', type=int, default=320, help='picture width in pixels (64…2448)')
    parser.add_argument('--height', type=int, default=256, help='picture height in pixels (64…2448)')
    parser.add_argument('--train', type=int, default=400, help='training pictures of mix')
    parser.add_argument('--val', type=int, default=60, help='validation pictures of mix')
    parser.add_argument('--test', type=int, default=60, help='test pictures of each of the three subsets')
    parser.add_argument('--workers', type=int, default=None, help='processes (default: one a CPU core)')
    parser.add_argument('--overwrite', action='store_true', help='replace a complete minibench in OUT')
    parser.add_argument('--contact-sheet', type=Path, metavar='FILE', help='also draw 12 pictures beside their masks')
    args = parser.parse_args()
    if args.out is None and args.contact_sheet is None:
        parser.error('give OUT, --contact-sheet FILE, or both')
    return args


def main(args: argparse.Namespace) -> None:
    """Make the data set, the contact sheet, or both."""
    from armbench_mmdet.errors import InputError
    from armbench_mmdet.minibench import make_minibench
    from armbench_mmdet.minibench.scene import MIX, SUBSETS
    from armbench_mmdet.minibench.writer import is_complete
    from armbench_mmdet.visualization.contact_sheet import minibench_sheet, write_sheet

    if args.out is not None:
        if is_complete(args.out) and not args.overwrite:
            raise InputError(
                f'OUT must not hold a complete minibench unless --overwrite is given, got {str(args.out)!r}'
            )
        counts = {(MIX, 'train'): args.train, (MIX, 'val'): args.val, **{(name, 'test'): args.test for name in SUBSETS}}
        make_minibench(
            args.out, counts=counts, width_px=args.width, height_px=args.height, seed=args.seed, workers=args.workers
        )
        print(f'minibench is in {args.out}')
    if args.contact_sheet is not None:
        write_sheet(args.contact_sheet, lambda: minibench_sheet(args.width, args.height, args.seed))
        print(f'12 pictures beside their masks are in {args.contact_sheet}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
