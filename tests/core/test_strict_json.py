"""JSON that every parser takes: numbers that are not finite become null, and a trace refuses them."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from specdec_core.metrics import summarize
from specdec_core.strict_json import to_json
from specdec_core.trace import Round, Token

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


def _refuse(constant: str):
    raise AssertionError(f"{constant} is no JSON")


@given(VALUES)
def test_any_values_are_written_without_constants_that_json_lacks(value):
    text = to_json(value)
    assert text.isascii()
    json.loads(text, parse_constant=_refuse)


def test_finite_values_come_back_and_others_are_null():
    values = {"a": [1.5, math.nan, (math.inf, 2)], "b": {"c": -math.inf, "d": "NaN"}}
    assert json.loads(to_json(values)) == {"a": [1.5, None, [None, 2]], "b": {"c": None, "d": "NaN"}}
    assert to_json([1.0, math.nan], compact=True) == "[1.0,null]"
    assert to_json([math.nan], indent=1) == "[\n null\n]"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["round", "token", "stats", "list"])
def test_a_round_with_a_number_that_is_not_finite_is_refused_by_the_field_s_name(place, value):
    rnd = Round(1, 3, 2, "fixed", [Token(5, "a", "accepted", 0.5, 0.25)], "a", 0.1, 0.2, 0.01)
    stats = summarize([rnd], time_to_first_token_s=0.2, prompt_tokens=4)
    data = json.loads(json.dumps(replace(rnd, stats=stats).to_dict()))
    name, table = {
        "round": ("draft_s", data),
        "token": ("target_prob", data["tokens"][0]),
        "stats": ("overhead_s", data["stats"]),
        "list": ("acceptance_by_position", data["stats"]),
    }[place]
    table[name] = [value] if place == "list" else value
    with pytest.raises(ValueError, match=f"{name} of a .* must be finite"):
        Round.from_dict(data)
