"""Print the fingerprint of a checkpoint's weights: python tools/state_digest.py CHECKPOINT

Two checkpoints have the same if their weights are the same bit by bit, and only then.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
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

    import torch

    from ssd_plugin.compat.torch_load import code_asked_for  # with what MMEngine's checkpoints hold

    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        code = code_asked_for(error)
        if code:
            sys.exit(f'{path} is refused: to read it would run {code}')
        sys.exit(f"{path} can't be loaded: {str(error).splitlines()[0]}")
    if 'state_dict' not in checkpoint:
        sys.exit(f'{path} has no state_dict: it is no checkpoint of a training run')
    print(state_digest(checkpoint['state_dict']))


if __name__ == '__main__':
    main()
