"""What each known fault does to a perfect prediction, and what stops it here: ``python tools/autopsy.py``.

Minibench's ground truth is evaluated as predictions by stock evaluation, with each fault and without; then the fault is
committed against this project's checks. Exit status 1 if one lets its fault through.
"""

from __future__ import annotations

import argparse

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', help='a minibench folder (default: data/minibench, made on first use)')
    parser.add_argument('--split', choices=['val', 'test'], default='test', help='split of the mix subset')
    parser.add_argument('--messages', action='store_true', help='also print what the checks said')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Run the autopsy and print its table."""
    from mmengine.logging import MMLogger
    from tqdm import tqdm

    from armbench_mmdet.autopsy import FAULTS, PerfectPredictions, examine, findings_table
    from armbench_mmdet.engine.console import quiet_console

    quiet_console(MMLogger.get_current_instance())
    perfect = PerfectPredictions.of_minibench(args.data_root, args.split)
    findings = list(tqdm(examine(perfect), total=len(FAULTS), unit='fault', leave=False))
    print(findings_table(findings))
    if args.messages:
        for finding in findings:
            print(f'\n{finding.fault.name}')
            for message in finding.messages:
                print(f'  {message}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
