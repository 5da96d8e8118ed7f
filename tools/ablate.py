"""Compare a baseline with its ingredients on every subset: ``python tools/ablate.py ABLATION [--workers N] …``."""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train and test every ingredient, and compare', allow_abbrev=False)
    parser.add_argument('ablation', type=Path, help='ablation file, such as configs/shift/mask-rcnn_minibench-shift.py')
    parser.add_argument('--workers', type=int, default=1, help='trainings at a time; they share the cores')
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help='run these ingredients, not all')
    parser.add_argument('--work-dir', type=Path, help='folder of the runs (default: work_dirs/ablations/<file name>)')
    parser.add_argument(
        '--results', type=Path, help='folder of the small result files (default: docs/results/<file name>)'
    )
    parser.add_argument(
        '--test-root',
        type=Path,
        help="test on this data root instead of the trainings' own, to choose without the tests",
    )
    parser.add_argument('--table', action='store_true', help='only print the tables of what is there')
    args = parser.parse_args()
    if args.workers < 1:
        parser.error('--workers must be at least 1')
    if args.test_root and not args.results:
        parser.error('--test-root wants --results: its results are not those of the tests')
    return args


def main(args: argparse.Namespace) -> int:
    """Run the tool."""
    from armbench_mmdet.ablation import comparison, load_ablation, read_tables, run_ablation

    results = args.results or Path('docs/results') / args.ablation.stem
    folder = args.work_dir or Path('work_dirs/ablations') / args.ablation.stem
    tools, failed = Path(__file__).parent, []
    if not args.table:
        failed = run_ablation(args.ablation, folder, results, args.workers, tools, args.test_root, args.only)
    order = list(load_ablation(args.ablation).ingredients)
    for subset, tables in read_tables(results).items():
        print(f'\n{subset}\n\n{comparison(tables, order)}')
    return 1 if failed else 0


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
