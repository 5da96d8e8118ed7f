"""Export a checkpoint's weights as safetensors: ``python tools/export_weights.py CHECKPOINT OUT.safetensors``."""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Write the weights of a checkpoint to a safetensors file')
    parser.add_argument('checkpoint', type=Path, help='checkpoint file, or a run folder (its latest checkpoint)')
    parser.add_argument('out', type=Path, help='file to write; tools/test.py and load_from take it as a checkpoint')
    parser.add_argument('--trust-checkpoint', action='store_true', help='load a file that can run code')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from armbench_mmdet.engine.checkpoints import export_weights, find_checkpoint

    checkpoint = find_checkpoint(args.checkpoint)
    print(f'{args.out}: {export_weights(checkpoint, args.out, args.trust_checkpoint)} tensors of {checkpoint}')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
