"""Weights of another SSD, for tools/test.py: python tools/convert_checkpoint.py SOURCE IN OUT"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _common as common

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'


def parse_args() -> argparse.Namespace:
    from ssd_plugin.checkpoints.layouts import SOURCES

    parser = argparse.ArgumentParser(description='Convert the weights of another SSD.')
    parser.add_argument(
        'source',
        choices=[*SOURCES, 'auto'],
        help="whose names IN has; mmdet: MMDetection's, which are this plugin's as well",
    )
    parser.add_argument('checkpoint', metavar='IN', help='checkpoint file')
    parser.add_argument('out', metavar='OUT', help='file to write')
    parser.add_argument(
        '--to', choices=['mmdet', 'torchvision'], default='mmdet', help='whose names OUT shall have'
    )
    parser.add_argument(
        '--classes', type=common.class_names, metavar='A,B', help='class names, where IN has none'
    )
    return parser.parse_args()


def describe(checkpoint: dict) -> str:
    """What was converted."""
    meta = checkpoint['meta']
    text = f'{meta["source"]}, {meta["num_classes"]} classes'
    names = meta.get('dataset_meta', {}).get('classes', ())
    more = ', ...' if names[3:] else ''
    return f'{text} ({", ".join(names[:3])}{more})' if names else text


def next_step(checkpoint: dict, out: str) -> str:
    """The command that tests it, or what its config has to be."""
    meta = checkpoint['meta']
    model = common.read_config(str(CONFIGS / meta['config'])).model
    if model.bbox_head.num_classes == meta['num_classes']:
        return f'python tools/test.py configs/{meta["config"]} {out}'
    return (
        f"a config with _base_ = 'configs/{meta['config']}', "
        f'model.bbox_head.num_classes={meta["num_classes"]} and your data, see docs/checkpoints.md'
    )


def main() -> None:
    args = parse_args()
    common.require_checkpoint(args.checkpoint)
    folder = Path(args.out).parent
    if not folder.is_dir():
        sys.exit(f'no folder {folder} for {args.out}')
    common.require_writable(Path(args.out))
    from ssd_plugin.checkpoints.caffe import read_caffemodel
    from ssd_plugin.checkpoints.convert import convert, recognise, to_torchvision
    from ssd_plugin.checkpoints.files import read, save

    with common.one_line_errors(args):
        is_caffe = args.source == 'caffe'  # whatever the file is called
        state, meta = (read_caffemodel(args.checkpoint), {}) if is_caffe else read(args.checkpoint)
        layout = recognise(state, args.source)
        converted = convert(state, layout, meta, args.classes)
        if args.to == 'torchvision':
            output = to_torchvision(converted)
            following = "torchvision's model.load_state_dict(...), see docs/checkpoints.md"
        else:
            output, following = converted, next_step(converted, args.out)
        save(output, args.out)
    print(f'{args.out}: {describe(converted)}')
    print(f'Next: {following}')


if __name__ == '__main__':
    main()
