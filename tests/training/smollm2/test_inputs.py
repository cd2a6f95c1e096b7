"""The folder between prepare and distill: complete, or refused with a reason."""

import json

import pytest

from tests.training.smollm2.tiny_inputs import gguf_weights, write_inputs
from training.smollm2.inputs import Inputs, read_parts, write_parts
from training.smollm2.prepare import HERE, read_held_out


def test_inputs_read_back_equal(tmp_path):
    assert write_inputs(tmp_path) == Inputs.read(tmp_path)


def test_parts_stay_below_the_size_and_join_to_the_whole(tmp_path):
    data, _ = gguf_weights()
    paths = write_parts(tmp_path, data, len(data) // 11)
    assert len(paths) > 10  # their order is that of numbers, not of names
    assert max(path.stat().st_size for path in paths) < len(data) // 11
    assert read_parts(tmp_path, len(data)).tobytes() == data


def test_a_missing_part_is_refused(tmp_path):
    data, _ = gguf_weights()
    write_parts(tmp_path, data, 40_000)[0].unlink()
    with pytest.raises(ValueError, match="copy every weights"):
        read_parts(tmp_path, len(data))


def test_a_held_out_conversation_with_another_prefix_is_refused(tmp_path):
    write_inputs(tmp_path)
    fields = json.loads((tmp_path / "inputs.json").read_text())
    fields["held_out"][4]["ids"][0] = 77
    (tmp_path / "inputs.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="conversation 4 does not begin"):
        Inputs.read(tmp_path)


def test_the_held_out_conversations_share_prefix_and_bridge():
    conversations = read_held_out(HERE / "held_out.jsonl")
    assert len(conversations) == 60
    assert len({tuple(each.ids[:24]) for each in conversations}) == 1
    assert len({tuple(each.ids[each.answer_start - 6 : each.answer_start]) for each in conversations}) == 1
