"""Settings: what each takes and refuses, by the name of the field."""

import json
from dataclasses import asdict

import pytest

import specdec_core as sd


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"typical_p": 0}, "typical_p must be above 0 and at most 1, not 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be at least 0.01 and at most 10"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be at least 0.01"),
        ({"frequency_penalty": 2.5}, "frequency_penalty must be at least -2 and at most 2, not 2.5"),
        ({"presence_penalty": "1"}, "presence_penalty must be at least -2"),
        ({"alternatives": 21}, "alternatives must be a whole number from 0 to 20, not 21"),
        ({"alternatives": True}, "alternatives must be a whole number"),
        ({"thinking": True}, "thinking must be 'auto' or 'on' or 'off', not True"),
        ({"banned_tokens": 5}, "banned_tokens must be a list of token ids"),
        ({"banned_tokens": [-1]}, "banned_tokens must be a list of token ids"),
        ({"banned_tokens": ["5"]}, "banned_tokens must be a list of token ids"),
        ({"banned_tokens": [True]}, "banned_tokens must be a list of token ids"),
        ({"logit_bias": [5]}, "logit_bias must map token ids to numbers"),
        ({"logit_bias": {-1: 2.0}}, "logit_bias must have token ids"),
        ({"logit_bias": {"five": 2.0}}, "logit_bias must have token ids"),
        ({"logit_bias": {1.0: 2.0}}, "logit_bias must have token ids"),
        ({"logit_bias": {5: 101}}, "logit_bias of token 5 must be at least -100 and at most 100, not 101"),
        ({"logit_bias": {5: float("-inf")}}, "logit_bias of token 5 must be"),
        ({"logit_bias": {"015": 1, 15: 2}}, "logit_bias names a token twice"),
        ({"logit_bias": {"٥": 1.0}}, "logit_bias must have token ids"),
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong, message):
    with pytest.raises(sd.SettingsError, match=message):
        sd.Settings(**wrong)


def test_biases_come_back_from_json():
    settings = sd.Settings(logit_bias={15: -2.5, 3: 1}, banned_tokens=[7])
    assert sd.Settings(**json.loads(json.dumps(asdict(settings)))) == settings
    assert sd.Settings(logit_bias={"15": 2.0}).logit_bias == {15: 2.0}


def test_equal_settings_have_equal_hashes():
    one, other = (sd.Settings(logit_bias={3: 1.0}, stop=["x"], top_k=5) for _ in range(2))
    assert hash(one) == hash(other)
    assert len({one, other, sd.Settings()}) == 2
