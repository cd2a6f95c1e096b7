"""SVG elements: nesting, names and numbers of attributes, and text that never becomes markup."""

from xml.etree import ElementTree

import pytest

import specdec_core as sd


def test_elements_nest_and_text_is_escaped():
    text = sd.svg_element("text", "a < b & “c”", x=1)
    assert ElementTree.fromstring(sd.svg_element("svg", text, text)).findtext("text") == "a < b & “c”"


@pytest.mark.parametrize(
    ("attributes", "markup"),
    [
        ({"class_": "a b"}, 'class="a b"'),
        ({"text_anchor": "end"}, 'text-anchor="end"'),
        ({"xml_space": "preserve"}, 'xml:space="preserve"'),
        ({"viewBox": "0 0 1 1"}, 'viewBox="0 0 1 1"'),
        ({"x": 3}, 'x="3"'),
        ({"x": 3.14159}, 'x="3.1"'),
        ({"aria_label": '"<'}, 'aria-label="&quot;&lt;"'),
    ],
)
def test_attributes(attributes, markup):
    assert sd.svg_element("g", **attributes) == f"<g {markup}/>"


def test_characters_that_xml_does_not_allow_are_replaced():
    element = sd.svg_element("text", "a\x00\ud800b", id="\x01")
    assert element == '<text id="\ufffd">a\ufffd\ufffdb</text>'
    ElementTree.fromstring(element)
