"""Quantities for people."""

import pytest

import specdec_core as sd
from specdec_core.cli.chat import figures
from specdec_core.units import counted


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (2048, "2,048 tokens")]
)
def test_a_count_agrees_with_its_noun(count, words):
    assert counted(count, "token") == words


def test_the_command_line_counts_one_message():
    stats = sd.summarize([], time_to_first_token_s=0.1, prompt_tokens=9, dropped_messages=1)
    assert "; 1 message at the beginning left out" in figures(stats)
