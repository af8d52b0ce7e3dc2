"""JPEG files by their segments: whether one ends before its image does."""

from __future__ import annotations

import re

JPEG_START = b'\xff\xd8\xff'
JPEG_SCAN, JPEG_END = b'\xff\xda', b'\xff\xd9'
# Within the data of a scan 0 follows 0xff, or the number of a restart.
BEHIND_SCAN = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')


def is_cut_off(content: bytes) -> bool:
    """Whether a JPEG ends before its image does; OpenCV 4 fills what is missing with grey.

    It is followed from segment to segment to the marker of its end: a preview in one of them has
    such a marker, too, and what comes behind, as the video of a phone's photograph, has any bytes.
    """
    if not content.startswith(JPEG_START) or content.endswith(JPEG_END):
        return False
    place = 2
    while content[place : place + 2] != JPEG_END:
        if place + 4 > len(content):
            return True
        if content[place] != 0xFF:
            return False  # damaged, which is left to the decoder
        is_scan = content[place : place + 2] == JPEG_SCAN
        is_filled = content[place + 1] == 0xFF  # 0xff may be repeated before a marker
        place += 1 if is_filled else 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
        if is_scan:
            behind = BEHIND_SCAN.search(content, place)
            place = behind.start() if behind else len(content)
    return False


def file_is_cut_off(path: str) -> bool:
    """:func:`is_cut_off` of a local file; only both ends of a complete one are read."""
    with open(path, 'rb') as file:
        if file.read(len(JPEG_START)) != JPEG_START:
            return False
        file.seek(-len(JPEG_END), 2)
        if file.read() == JPEG_END:
            return False
        file.seek(0)
        return is_cut_off(file.read())
