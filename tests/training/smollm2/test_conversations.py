"""The store: what is kept of a conversation, and how batches point into it."""

import numpy as np
import pytest
import torch

from tests.training.smollm2.tiny_inputs import tiny_conversations, tiny_target
from training.smollm2.conversations import ConversationStore

TEXTS = tiny_conversations(9, seed=8)


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture
def store(target):
    store = ConversationStore(target, 2000, 2000)
    with torch.no_grad():
        store.add_texts(target, TEXTS, rows=4)
    return store


def test_a_batch_has_for_every_answer_token_the_state_that_predicts_it(target, store):
    by_length = sorted(TEXTS, key=lambda each: len(each.ids))
    which = np.array([5, 0, 3])
    batch = store.batch(store.select(which))
    following = batch.ids.flatten()[batch.positions + 1].tolist()
    assert following == [
        token for index in which for token in by_length[index].ids[by_length[index].answer_start :]
    ]
    with torch.no_grad():
        expected = target.states(batch.ids).flatten(0, 1)[batch.positions]
    torch.testing.assert_close(store.states[batch.state_rows], expected, atol=2e-5, rtol=1e-4)


def test_a_conversation_is_added_once(target, store):
    before = len(store)
    with torch.no_grad():
        store.add_texts(target, TEXTS[::-1], rows=3)
    assert len(store) == before == len(TEXTS)


def test_a_full_store_says_so_and_adds_nothing(target):
    store = ConversationStore(target, 100, 20)
    ids, states = torch.randint(160, (2, 40)), torch.zeros(2, 40, 64)
    assert store.add(ids[:1], states[:1], [40], [25])
    assert not store.add(ids[1:], states[1:], [40], [25])
    assert len(store) == 1
    assert store.answer_tokens == 15


def test_answers_of_a_few_tokens_are_left_out(target):
    store = ConversationStore(target, 100, 100)
    assert store.add(torch.randint(160, (1, 20)), torch.zeros(1, 20, 64), [20], [13])
    assert len(store) == 0


def test_truncation_drops_the_last(store):
    kept = store.select(slice(4))
    store.truncate(4)
    assert len(store) == 4
    assert store.answer_tokens == kept.answer_tokens
