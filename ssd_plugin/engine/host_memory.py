"""Memory of the host that is freed stays with the process, for the next image or step."""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = 'SSD_PLUGIN_KEEP_MEMORY'  # environment variable: 0 leaves memory to the C library

# Of <malloc.h>, with values for mallopt(): free memory at the top of the heap is never given back,
# and no block, however large, comes from a mapping of its own.
M_TRIM_THRESHOLD, NEVER = -1, -1
M_MMAP_MAX, NONE = -4, 0


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory, on Linux; whether it does so from now on.

    By default it maps each large tensor anew and unmaps it when it is freed, and the kernel has to
    clear every page of the next one. With freed memory kept, training a light detector takes little
    more than half the time, and detecting seven tenths; the process holds up to a quarter more
    memory (docs/performance.md). Loader workers started later inherit it.
    """
    if sys.platform != 'linux' or os.environ.get(SWITCH) == '0':
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, NEVER)) and bool(mallopt(M_MMAP_MAX, NONE))
