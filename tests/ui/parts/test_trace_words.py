"""Words for traces: complete tables, and stylesheets and scripts that name the same kinds of tokens."""

import json
import re
from typing import get_args

import specdec_core as sd
from specdec_ui.parts.assets import STATIC, STYLESHEETS
from specdec_ui.parts.trace_words import GAMMA_REASONS, TOKEN_KINDS, script_data
from specdec_ui.traces.picture import INK

KINDS = set(get_args(sd.TokenKind))


def test_every_kind_of_token_and_every_reason_has_words():
    assert set(TOKEN_KINDS) == KINDS
    assert set(GAMMA_REASONS) == set(get_args(sd.GammaReason))
    assert set(INK) == KINDS


def test_scripts_get_every_kind_with_its_sets():
    kinds = json.loads(json.dumps(script_data()))["tokenKinds"]
    assert set(kinds) == KINDS
    assert {kind for kind, facts in kinds.items() if facts["emitted"]} == sd.EMITTED_KINDS
    assert {kind for kind, facts in kinds.items() if facts["drafted"]} == sd.DRAFTED_KINDS


def test_the_stylesheets_name_every_kind_but_plain_and_no_other():
    """A plain token has the text's own colours."""
    css = "".join(sheet.read_text(encoding="utf-8") for sheet in STYLESHEETS)
    assert set(re.findall(r'\[data-kind="?(\w+)"?\]', css)) == KINDS - {"plain"}


def test_scripts_have_no_lists_of_kinds_of_their_own():
    lists = re.compile(r"\b(" + "|".join(KINDS) + r')"?: "|new Set\(\["(' + "|".join(KINDS) + ")")
    for path in STATIC.glob("*.js"):
        assert not lists.search(path.read_text(encoding="utf-8")), path.name
