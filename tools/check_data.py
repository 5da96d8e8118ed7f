"""Check a data set folder before training on it: ``python tools/check_data.py DATA_ROOT``.

Exit status: 0 clean, 1 warnings only and --strict, 2 errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_root', type=Path, metavar='DATA_ROOT', help='folder of the subsets')
    parser.add_argument('--subset', action='append', metavar='NAME', help='check this subset only; may be repeated')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything found to this file')
    parser.add_argument('--strict', action='store_true', help='exit with 1 if there are warnings')
    parser.add_argument('--workers', type=int, metavar='N', help='processes that decode images (default: one a core)')
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Audit, print, and write what was asked for."""
    import json

    from armbench_mmdet.audit.audit import audit_data_set, format_audit
    from armbench_mmdet.datasets.release import SUBSETS, check_choice
    from armbench_mmdet.errors import InputError

    if args.workers is not None and args.workers < 1:
        raise InputError(f'--workers must be at least 1, got {args.workers}')
    subsets = tuple(check_choice('--subset', name, SUBSETS) for name in args.subset or SUBSETS)
    if args.json and not args.json.resolve().parent.is_dir():
        raise InputError(f'--json must be a file in an existing folder, got {str(args.json)!r}')
    audit = audit_data_set(args.data_root, subsets, args.workers, show_progress=True)
    print(format_audit(audit))
    if args.json:
        args.json.write_text(json.dumps(audit.to_dict(), indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
    return audit.findings.exit_status(args.strict)


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
