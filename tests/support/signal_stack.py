"""The stack on which a thread's signal handlers run, if it is not the thread's own."""

import ctypes
from pathlib import Path


class Stack(ctypes.Structure):
    """``stack_t`` of the C library."""

    _fields_ = [
        ('address', ctypes.c_void_p),
        ('flags', ctypes.c_int),
        ('size', ctypes.c_size_t),
    ]


def signal_stack_is_there():
    """Whether this thread's stack for signals lies in memory that the process has."""
    stack, maps = Stack(), Path('/proc/self/maps')
    if not maps.exists():  # not on Linux
        return True
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    if not stack.address:
        return True
    regions = (line.split(maxsplit=1)[0].split('-') for line in maps.read_text().splitlines())
    return any(int(start, 16) <= stack.address < int(end, 16) for start, end in regions)
