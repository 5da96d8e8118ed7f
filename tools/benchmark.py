"""Ours against the stock stack, in one run: ``python tools/benchmark.py {startup,pipeline,…,all} [--json FILE]``.

Each row gives the case, both figures and their ratio (above 1: ours is better), and whether the results agreed.
Run it on an idle machine, and more than once.
"""

import argparse
import importlib
import json
from pathlib import Path

import armbench_cli

NAMES = sorted(path.stem for path in (Path(__file__).parent / 'benchmarks').glob('[a-z]*.py'))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='+', choices=[*NAMES, 'all'], metavar='NAME', help=', '.join([*NAMES, 'all']))
    parser.add_argument('--json', type=Path, help='also write the rows to this file')
    parser.add_argument('--small', action='store_true', help='small cases only: seconds instead of minutes')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Run the benchmarks and print a row as soon as it is measured."""
    import armbench_mmdet  # noqa: F401 - before the stock stack is imported

    rows = []
    print(f'{"case":72} {"ours":>10} {"peer":>10} {"unit":6} {"ratio":>7}  equal')
    for name in NAMES if 'all' in args.names else args.names:
        for row in importlib.import_module(f'benchmarks.{name}').rows(small=args.small):
            rows.append(row)
            case = f'{row["name"]}: {row["case"]}'
            equal = {True: 'yes', False: 'NO', None: '–'}[row['equal']]
            figures = f'{row["ours"]:10.4g} {row["peer"]:10.4g} {row["unit"]:6} {row["ratio"]:7.2f}'
            print(f'{case:72} {figures}  {equal}', flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
