"""Generation: the stored states are a whole forward's, and sampling follows the temperatures."""

import time

import pytest
import torch

from tests.training.smollm2.tiny_inputs import TEMPLATE, tiny_conversations, tiny_target
from training.smollm2.attention import attention_error, torch_attention
from training.smollm2.conversations import ConversationStore
from training.smollm2.generation import GenerationPlan, Generator, check_decoder, check_states, generate
from training.smollm2.run_log import RunLog

pytestmark = pytest.mark.slow

POSITIONS = 96


@pytest.fixture(scope="module")
def target():
    return tiny_target(POSITIONS)


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path, time.time())


@torch.no_grad()
def test_generated_states_are_those_of_a_whole_forward(target, log):
    store = ConversationStore(target, 20_000, 8_000)
    plan = GenerationPlan(slots=32, max_positions=POSITIONS, until_s=6.0, fast=False)
    check = max((each.ids for each in tiny_conversations(5, seed=1)), key=len)
    generate(target, TEMPLATE, store, plan, check, log)
    assert len(store) > 20
    batch = store.batch(store.select())
    expected = target.states(batch.ids).flatten(0, 1)[batch.positions]
    torch.testing.assert_close(store.states[batch.state_rows], expected, atol=5e-5, rtol=1e-3)
    assert (batch.ids[:, : len(TEMPLATE.prefix)] == torch.tensor(TEMPLATE.prefix)).all()


@torch.no_grad()
def test_a_greedy_slot_takes_the_likeliest_token(target):
    generator = Generator(target, TEMPLATE, 4, POSITIONS, torch_attention)
    generator.prime(TEMPLATE.prefix)
    slots = generator.slots
    slots.answering[:] = True
    for _ in range(20):
        generator.step()
    greedy = slots.ids[0, : len(TEMPLATE.prefix) + 20]  # the first slot answers at temperature 0
    logits = target.states(greedy[None])[0] @ target.embedding.T
    start = len(TEMPLATE.prefix)
    assert not slots.finished[0]
    assert greedy[start:].tolist() == logits[start - 1 : -1].argmax(-1).tolist()


@torch.no_grad()
def test_a_decode_step_that_differs_is_refused(target, log):
    def wrong_attention(query, keys, values, positions):
        return torch_attention(query, keys, values, positions - 1)

    generator = Generator(target, TEMPLATE, 4, POSITIONS, wrong_attention)
    with pytest.raises(RuntimeError, match="differs from the reference"):
        check_decoder(generator, tiny_conversations(1, seed=2)[0].ids, log)


@torch.no_grad()
def test_wrong_stored_states_are_dropped(target, log):
    store = ConversationStore(target, 2000, 2000)
    store.add_texts(target, tiny_conversations(10, seed=4))
    store.states[:] = store.states.roll(1, 0)
    with pytest.raises(RuntimeError, match="stored states differ"):
        check_states(target, store, 3, log)
    assert len(store) == 3


def test_the_attention_check_sees_an_error(target):
    def shifted(query, keys, values, positions):
        return torch_attention(query, keys, values, positions) + 0.1

    arguments = target.shape, POSITIONS, target.device, target.dtype
    assert attention_error(torch_attention, *arguments) < 1e-5
    assert attention_error(shifted, *arguments) == pytest.approx(0.1, abs=1e-4)
