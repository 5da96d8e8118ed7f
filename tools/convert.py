"""Convert data of other formats (LabelMe, label images, YOLO) to COCO files in ARMBench's shape, or cut a COCO file."""

import argparse
from pathlib import Path

import armbench_cli

EPILOG = """
python tools/convert.py data labelme mix-object-tote/annotations OUT --split test
python tools/convert.py data label-images masks OUT --images photos --tote-value 1
python tools/convert.py data yolo dataset/train OUT --split train
python tools/convert.py data coco train.json train_1pct.json --fraction 0.01 --seed 0
"""


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', choices=['data'], metavar='data')
    parser.add_argument('format', choices=['labelme', 'label-images', 'yolo', 'coco'])
    parser.add_argument('source', type=Path, metavar='IN', help='folder of annotations, or the COCO file to cut')
    parser.add_argument('out', type=Path, metavar='OUT', help='folder for SPLIT.json and images/, or the COCO file')
    parser.add_argument('--split', default='test', help='name of the file in OUT (default: test)')
    parser.add_argument('--images', type=Path, metavar='DIR', help='images, if not where the format has them')
    parser.add_argument('--tote-value', type=int, metavar='V', help='label images: the value that is the tote')
    parser.add_argument('--fraction', type=float, default=1.0, help='coco: share of the images to keep')
    parser.add_argument('--seed', type=int, default=0, help='coco: of the share')
    parser.add_argument('--list', type=Path, metavar='FILE', help='coco: text file of the images to keep, one a line')
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Convert or cut, say what came out, and audit what was converted; its status is the audit's."""
    from armbench_mmdet.audit.audit import audit_own_files, format_audit
    from armbench_mmdet.convert.data import convert, cut
    from armbench_mmdet.datasets.release import IMAGE_FOLDER

    if args.format == 'coco':
        names = args.list.read_text().split('\n') if args.list else None
        report = cut(
            args.source, args.out, names=names and [n for n in names if n], fraction=args.fraction, seed=args.seed
        )
        print(report.text())
        return 0
    options = {'values': {args.tote_value: 'tote'}} if args.format == 'label-images' and args.tote_value else {}
    report = convert(args.format, args.source, args.out, args.split, args.images, **options)
    print(report.text())
    audit = audit_own_files([report.ann_file], args.out / IMAGE_FOLDER, show_progress=True)
    print(format_audit(audit))
    return audit.findings.exit_status(strict=False)


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
