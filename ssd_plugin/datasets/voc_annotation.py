"""One xml of VOC's kind: reading it without harm, and what it has to have."""

from __future__ import annotations

import xml.etree.ElementTree as ET

NEEDED = ('name', 'bndbox/xmin', 'bndbox/ymin', 'bndbox/xmax', 'bndbox/ymax')  # of an object
# What reading a faulty one raises. LookupError: an unknown encoding; OverflowError: an infinite
# coordinate; TypeError: an empty <difficult>.
ERRORS = (OSError, ET.ParseError, ValueError, LookupError, OverflowError, TypeError)


class _WithoutDoctype(ET.TreeBuilder):
    """Ends reading at a document type: annotations need none, and entities grow from them."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('it declares a document type, in which entities may hide')


def read_annotation(path: str) -> ET.Element:
    """The root of a file, each of whose objects has a name and four coordinates.

    A file that declares a document type is read no further: "billion laughs" take neither memory
    nor time.

    Raises:
        OSError, xml.etree.ElementTree.ParseError, LookupError: It can't be read.
        ValueError: It declares a document type, or an object lacks something.
    """
    root = ET.parse(path, parser=ET.XMLParser(target=_WithoutDoctype())).getroot()
    for element in root.findall('object'):
        for tag in NEEDED:
            if not (element.findtext(tag) or '').strip():
                raise ValueError(f'an object has no {tag.split("/")[-1]}')
    return root


def annotated_size(root: ET.Element) -> tuple[int, int] | None:
    """Width and height that a file states, None if it states none.

    Raises:
        ValueError, OverflowError: It states one without the other, or what is no number.
    """
    if root.find('size') is None:
        return None
    texts = (root.findtext('size/width'), root.findtext('size/height'))
    if not all(texts):
        raise ValueError('its size has no width or no height')
    width, height = (int(float(text)) for text in texts)
    return width, height
