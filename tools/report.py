"""Show what runs did: ``python tools/report.py WORK_DIR… --out DIR`` writes report.html, results.md and results.csv."""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Write a report of runs', allow_abbrev=False)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder of a run')
    parser.add_argument('--out', default='work_dirs/report', help='folder for the report (default: %(default)s)')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from armbench_mmdet.report.page import gather, write_report
    from armbench_mmdet.report.tables import overview

    report = gather(args.work_dirs)
    page = write_report(report, Path(args.out))
    for problem in report.problems:
        print(f'note: {problem}')
    print(overview(report.compared).markdown())
    print(f'\nreport: {page}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
