"""The device that a user names."""

from __future__ import annotations

import torch

from ssd_plugin.errors import InputError, one_line


def require_device(device: str | None) -> None:
    """Check that there is a device, such as ``cuda:0``; None, which leaves the choice, is fine.

    Raises:
        InputError: There is none of that name.
    """
    if device:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f'device {device}: {one_line(error)}') from error
