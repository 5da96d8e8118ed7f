"""Check data before training on them: ``python tools/check_data.py DATA_ROOT``.

DATA_ROOT has ARMBench's folders, or Roboflow's. Any other COCO file: ``--ann-file FILE --images FOLDER``.
Exit status: 0 clean, 1 warnings only and --strict, 2 errors.
"""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('data_root', type=Path, nargs='?', metavar='DATA_ROOT', help='folder of the subsets')
    source.add_argument('--ann-file', type=Path, nargs='+', metavar='FILE', help='annotation files of your own')
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER', help='their images (default: images/ beside, or beside)'
    )
    parser.add_argument('--category-map', metavar='MAP', help="such as \"{'parcel': 'object', 'lid': None}\"")
    parser.add_argument('--subset', action='append', metavar='NAME', help='check this subset only; may be repeated')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything found to this file')
    parser.add_argument('--strict', action='store_true', help='exit with 1 if there are warnings')
    parser.add_argument('--workers', type=int, metavar='N', help='processes that decode images (default: one a core)')
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Audit, print, and write what was asked for."""
    import json

    from armbench_mmdet.audit import audit_data_set, audit_own_files, format_audit
    from armbench_mmdet.configs import read_dict
    from armbench_mmdet.datasets.release import SUBSETS, check_choice
    from armbench_mmdet.errors import InputError

    if args.workers is not None and args.workers < 1:
        raise InputError(f'--workers must be at least 1, got {args.workers}')
    subsets = tuple(check_choice('--subset', name, SUBSETS) for name in args.subset or SUBSETS)
    if args.images and not args.ann_file:
        raise InputError(f'--images must come with --ann-file, got {str(args.images)!r} alone')
    if args.json and not args.json.resolve().parent.is_dir():
        raise InputError(f'--json must be a file in an existing folder, got {str(args.json)!r}')
    category_map = read_dict('--category-map', args.category_map) if args.category_map else None
    options = {'category_map': category_map, 'workers': args.workers}
    if args.ann_file:
        audit = audit_own_files(args.ann_file, args.images, **options)
    else:
        audit = audit_data_set(args.data_root, subsets, **options)
    print(format_audit(audit))
    if args.json:
        args.json.write_text(json.dumps(audit.to_dict(), indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
    return audit.exit_status(args.strict)


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
