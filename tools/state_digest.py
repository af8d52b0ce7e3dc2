"""Print the fingerprint of a checkpoint's weights: python tools/state_digest.py CHECKPOINT

Two checkpoints have the same if their weights are the same bit by bit, and only then.
"""

from __future__ import annotations

import argparse
import hashlib
import sys

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
    path = parser.parse_args().checkpoint
    common.require_checkpoint(path)

    from ssd_plugin.checkpoints.files import read
    from ssd_plugin.errors import SSDPluginError

    try:
        state, _ = read(path)
    except (SSDPluginError, OSError) as error:
        sys.exit(str(error))
    print(state_digest(state))


if __name__ == '__main__':
    main()
