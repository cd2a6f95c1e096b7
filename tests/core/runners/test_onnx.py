"""Graphs on ONNX Runtime compute the model's logits, and a row the same way whatever the rows beside it."""

import copy
import weakref
from pathlib import Path

import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from specdec_core.out_of_memory import out_of_memory
from specdec_core.runners import LeanRunner, RewindableCache, Runner, runner_for
from specdec_core.runners.onnx import runner as onnx_runner
from specdec_core.runners.onnx.call import Doubling
from specdec_core.runners.onnx.runner import OnnxRunner
from specdec_core.runners.short_head import shorten_head
from tests.support.tiny_models import ARCHITECTURES, VOCAB, tiny_model, uneven_model

FAMILIES = [name for name in ARCHITECTURES if name != "gpt2"]
ROOT = Path(__file__).parents[3]
FORMATS = ["float32", "int8", "int4"]
ROWS = (1, 2, 3, 5, 8)
PROMPT = 20


def _ids(count: int = 60) -> torch.Tensor:
    return torch.randint(0, VOCAB, (count,), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def _wanted(architecture: str, ids: torch.Tensor) -> torch.Tensor:
    return uneven_model(architecture)(ids[None]).logits[0]


def _logits_by(runner: OnnxRunner, ids: torch.Tensor, rows: int) -> torch.Tensor:
    """Logits of what follows the prompt, so many rows in a forward."""
    cache = runner.new_cache()
    runner.forward(cache, ids[:PROMPT])
    return torch.cat([runner.forward(cache, part).clone() for part in ids[PROMPT:].split(rows)])


# The arithmetic of a row


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_row_is_the_same_bit_for_bit_beside_any_number_of_rows(architecture, weights):
    runner = OnnxRunner(uneven_model(architecture), weights=weights)
    alone = _logits_by(runner, _ids(), 1)
    for rows in ROWS[1:]:
        got = _logits_by(runner, _ids(), rows)
        if runner.same_rows:
            assert torch.equal(got, alone), rows
        elif weights == "float32":
            torch.testing.assert_close(got, alone, atol=1e-4, rtol=0)
    if not runner.same_rows:
        pytest.xfail("this CPU has kernels that compute a row in another way beside others")


@pytest.mark.parametrize("doubling", Doubling)
@pytest.mark.parametrize("architecture", FAMILIES)
def test_whatever_part_computes_a_single_row_twice_its_logits_are_the_model_s(architecture, doubling):
    runner = OnnxRunner(uneven_model(architecture))
    runner._doubling = doubling
    got = _logits_by(runner, _ids(), 1)
    torch.testing.assert_close(got, _wanted(architecture, _ids())[PROMPT:], atol=1e-4, rtol=1e-4)


def test_the_smallest_part_that_is_enough_computes_a_single_row_twice(monkeypatch):
    """A stand-in for a CPU whose products, too, round one row in another way than several."""
    run = onnx_runner.Call.run

    def inexact(call, ids, end):
        logits = run(call, ids, end)
        return logits + 1e-6 if call.fed == 1 else logits

    if OnnxRunner(uneven_model("llama"))._doubling >= Doubling.LAYERS:
        pytest.skip("this is such a CPU")
    monkeypatch.setattr(onnx_runner.Call, "run", inexact)
    runner = OnnxRunner(uneven_model("llama"))
    assert runner.same_rows
    assert runner._doubling == Doubling.LAYERS


def test_rows_that_nothing_makes_equal_are_known_as_such(monkeypatch):
    run = onnx_runner.Call.run
    monkeypatch.setattr(
        onnx_runner.Call, "run", lambda call, ids, end: run(call, ids, end) + 1e-6 * ids.shape[0]
    )
    assert not OnnxRunner(uneven_model("llama")).same_rows


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_quantized_weights_stay_near_the_model(architecture, weights):
    runner = OnnxRunner(uneven_model(architecture), weights=weights)
    wanted = _wanted(architecture, _ids())[PROMPT:].softmax(-1)
    distance = (_logits_by(runner, _ids(), 5).softmax(-1) - wanted).abs().sum(-1).mean() / 2
    assert 0 < distance < {"int8": 0.02, "int4": 0.12}[weights]


# Threads


def test_functions_of_the_logits_run_on_one_of_torch_s_threads_and_the_others_are_left_as_they_were():
    runner = OnnxRunner(uneven_model("llama"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cache = runner.new_cache()
        assert runner.forward(cache, _ids()[:1], then=lambda _: torch.get_num_threads()) == 1
        with pytest.raises(ZeroDivisionError):
            runner.forward(cache, _ids()[:1], then=lambda _: 1 / 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# The cache


def test_what_lies_after_the_last_position_is_never_read():
    runner = OnnxRunner(uneven_model("gemma3"))
    cache = runner.new_cache()
    runner.forward(cache, _ids()[:PROMPT])
    with torch.inference_mode():
        cache.states[:, :, :, PROMPT:] = torch.nan
    got = torch.cat([runner.forward(cache, part).clone() for part in _ids()[PROMPT:].split([1, 5, 1, 33])])
    torch.testing.assert_close(got, _wanted("gemma3", _ids())[PROMPT:], atol=1e-4, rtol=1e-4)


def test_buffers_that_a_conversation_has_outgrown_are_freed():
    runner = OnnxRunner(uneven_model("llama"))
    cache = runner.new_cache()
    for rows in (1, 2, 3):
        runner.forward(cache, _ids()[:rows])
    outgrown = weakref.ref(cache.states)
    cache.reserve(1000)
    runner.forward(cache, _ids()[:1])
    assert outgrown() is None


def test_conversations_in_turns_do_not_disturb_each_other():
    runner = OnnxRunner(uneven_model("llama"))
    one, other = runner.new_cache(), runner.new_cache()
    ids = _ids()
    got = []
    for at in range(30):
        got.append(runner.forward(one, ids[at : at + 1]).clone())
        runner.forward(other, ids[40:43] if at % 2 else ids[40:41])
    torch.testing.assert_close(torch.cat(got), _wanted("llama", ids)[:30], atol=1e-4, rtol=1e-4)


def test_the_buffers_of_a_conversation_that_is_gone_are_freed():
    runner = OnnxRunner(uneven_model("llama"))
    cache = runner.new_cache()
    runner.forward(cache, _ids()[:1])
    runner.chain(cache, _ids()[:1], [lambda _: _ids()[:1]] * 3)
    buffers = weakref.ref(cache.states)
    del cache
    assert buffers() is None


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("cut", [0, 7])
def test_a_head_that_is_tied_to_the_embedding_has_its_blocks(weights, cut):
    tied, apart = uneven_model("llama"), uneven_model("llama")
    for model in (tied, apart):
        model.set_input_embeddings(copy.deepcopy(model.get_input_embeddings()))
        model.get_output_embeddings().weight.data = model.get_input_embeddings().weight.data
    apart.get_output_embeddings().weight.data = apart.get_input_embeddings().weight.data.clone()
    runner = OnnxRunner(tied, weights=weights, vocab_size=VOCAB - cut)
    other = OnnxRunner(apart, weights=weights, vocab_size=VOCAB - cut)
    assert torch.equal(_logits_by(runner, _ids() % 50, 1), _logits_by(other, _ids() % 50, 1))
    assert runner.step_bytes == other.step_bytes
    shared = runner.graph.embedding["embedding.codes"]
    assert shared.data_ptr() in {part.data_ptr() for part in runner.graph.weights.values()}
    assert other.weights_bytes - runner.weights_bytes == sum(
        part.nbytes for part in runner.graph.embedding.values()
    )


# Forwards in a row


def _chained(runner: Runner, cache: RewindableCache, first: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Logits of forwards in a row: over `first`, then over each of `ids`."""
    rows: list[torch.Tensor] = []

    def thens():
        for at in range(len(ids) + 1):
            yield lambda logits, at=at: (rows.append(logits.clone()), ids[at : at + 1])[1]

    runner.chain(cache, first, thens())
    assert cache.length == PROMPT + len(first) + len(ids)
    return torch.cat(rows)


@pytest.mark.parametrize("doubling", Doubling)
@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("steps", [1, 4, 40])
def test_forwards_in_a_row_are_like_single_ones(doubling, first, steps):
    runner = OnnxRunner(uneven_model("llama"))
    runner._doubling = doubling
    ids = _ids(PROMPT + first + steps)
    wanted = _logits_by(runner, ids, 1)[first - 1 :]
    cache = runner.new_cache()
    for _ in range(3):  # the forwards are bound to the ids' memory in the second round
        runner.forward(cache, ids[:PROMPT])
        got = _chained(runner, cache, ids[PROMPT : PROMPT + first], ids[PROMPT + first :])
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
        cache.rewind(0)


def test_ids_that_are_passed_again_are_read_again():
    runner, ids = OnnxRunner(uneven_model("llama")), _ids()
    wanted = _logits_by(runner, ids[: PROMPT + 8], 1)
    cache, fed = runner.new_cache(), torch.zeros(1, dtype=torch.int64)
    runner.forward(cache, ids[:PROMPT])
    for at in range(8):
        fed[0] = ids[PROMPT + at]
        # Another tensor in between, and ids of a type and in places that are copied.
        given = {3: fed.clone(), 5: fed.to(torch.int32), 6: fed.repeat(2)[::2]}.get(at, fed)
        torch.testing.assert_close(runner.forward(cache, given)[0], wanted[at], atol=1e-4, rtol=0)


def test_a_chain_of_no_forwards_leaves_the_cache():
    runner = OnnxRunner(uneven_model("llama"))
    cache = runner.new_cache()
    runner.chain(cache, _ids()[:1], [])
    assert cache.length == 0


# Output layers


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [0, 1, 7, 50, 95], [4, 90]])
def test_a_short_output_layer_leaves_the_other_tokens_out(kept, weights):
    whole = _logits_by(OnnxRunner(uneven_model("llama"), weights=weights), _ids(), 3)
    model = uneven_model("llama")
    shorten_head(model, kept)
    short = _logits_by(OnnxRunner(model, weights=weights), _ids(), 3)
    torch.testing.assert_close(short[:, kept], whole[:, kept], atol=1e-4, rtol=1e-4)
    others = sorted(set(range(VOCAB)) - set(kept))
    assert (short[:, others] == -torch.inf).all()


def test_only_the_last_rows_are_computed_where_asked():
    runner = OnnxRunner(uneven_model("gemma2"), vocab_size=VOCAB - 3)
    wanted = _wanted("gemma2", _ids())[:, :-3]
    for last_rows in (1, 4):
        got = runner.forward(runner.new_cache(), _ids(), last_rows=last_rows)
        torch.testing.assert_close(got, wanted[-last_rows:], atol=1e-4, rtol=1e-4)


# Models and machines that it is not for


def test_heads_that_onnx_runtime_cannot_rotate_are_left_to_the_lean_runner():
    model = tiny_model("llama", head_dim=8)
    runner = runner_for(model)
    assert type(runner) is LeanRunner
    assert "8 dimensions, not a multiple of 16" in runner.reason


def test_without_room_for_copies_the_lean_runner_serves():
    runner = runner_for(tiny_model("llama"), packs=False)
    assert type(runner) is LeanRunner
    assert "not enough memory" in runner.reason


def test_whatever_onnx_runtime_refuses_is_the_reason(monkeypatch):
    def refused(*_, **__):
        raise InvalidArgument("no such operator")

    monkeypatch.setattr(onnx_runner, "open_session", refused)
    runner = runner_for(tiny_model("llama"))
    assert type(runner) is LeanRunner
    assert "no such operator" in runner.reason


def test_an_answer_for_which_memory_runs_out_is_known_as_such():
    runner = OnnxRunner(uneven_model("llama"))
    with pytest.raises(RuntimeError) as refusal:
        runner.new_cache().reserve(2**50)
    assert out_of_memory(refusal.value)


@pytest.mark.parametrize(("weights", "bits"), [("float32", 32), ("int8", 8 + 1), ("int4", 4 + 2)])
def test_a_step_reads_the_weights_of_its_products_in_their_format(weights, bits):
    model = tiny_model("llama", hidden_size=64)
    head = model.get_output_embeddings().weight
    products = sum(p.numel() for n, p in model.named_parameters() if "proj" in n)
    runner = OnnxRunner(model, weights=weights)
    head_bits = 8 + 1 if weights == "int4" else bits
    wanted = (products * bits + head.numel() * head_bits) / 8
    assert 0.95 * wanted < runner.step_bytes < 1.15 * wanted
