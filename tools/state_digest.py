"""Print the fingerprint of a checkpoint's weights: python tools/state_digest.py CHECKPOINT

Two checkpoints have the same if their weights are the same bit by bit, and only then.
"""

from __future__ import annotations

import argparse
import hashlib

import _common as common


def state_digest(state_dict: dict) -> str:
    """sha256 over names (in order), dtypes, shapes and bytes of the tensors of a state dict."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the sha256 of a checkpoint's weights.")
    parser.add_argument('checkpoint', help='checkpoint file')
    args = parser.parse_args()
    common.require_checkpoint(args.checkpoint)

    from ssd_plugin.checkpoints.files import read

    with common.one_line_errors(args):
        print(state_digest(read(args.checkpoint)[0]))


if __name__ == '__main__':
    main()
