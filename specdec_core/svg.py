"""SVG elements as text: attributes, nesting and escaping. Knows nothing of what is drawn."""

from __future__ import annotations

import re
from html import escape

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class SvgElement(str):
    """The markup of one element, which is not escaped again inside another one."""

    __slots__ = ()


def svg_element(name: str, *children: str, **attributes: str | float) -> SvgElement:
    """Return an element. Children that are no SvgElement are text and are escaped; characters that XML does
    not allow become U+FFFD.

    In attribute names `_` stands for `-`, `xml_` for `xml:`, and an ending `_` is dropped (`class_`). Floats
    get one decimal.
    """
    head = "".join(f' {_attribute(key)}="{_value(value)}"' for key, value in attributes.items())
    if not children:
        return SvgElement(f"<{name}{head}/>")
    only_elements = all(isinstance(child, SvgElement) for child in children)
    body = ("\n" if only_elements else "").join(map(_child, children))
    return SvgElement(f"<{name}{head}>{body}</{name}>")


def _child(child: str) -> str:
    return child if isinstance(child, SvgElement) else _escaped(child)


def _attribute(key: str) -> str:
    if key.startswith("xml_"):
        return "xml:" + key.removeprefix("xml_")
    return key.removesuffix("_").replace("_", "-")


def _value(value: str | float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else _escaped(str(value))


def _escaped(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))
