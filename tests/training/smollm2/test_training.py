"""The loss's gradient, the schedule, the batches, and a drafter that learns."""

import time

import numpy as np
import pytest
import torch

from tests.training.smollm2.tiny_inputs import HEAD_IDS, tiny_conversations, tiny_target
from training.smollm2.conversations import ConversationStore, Selection
from training.smollm2.distillation_loss import DistillationLoss
from training.smollm2.drafter import Drafter
from training.smollm2.evaluation import evaluate
from training.smollm2.run_log import RunLog
from training.smollm2.training import Trainer, TrainingPlan, batches, learning_rate, train


@pytest.fixture(scope="module")
def target():
    return tiny_target()


@pytest.fixture
def store(target):
    store = ConversationStore(target, 10_000, 8_000)
    with torch.no_grad():
        store.add_texts(target, tiny_conversations(80, seed=6))
    return store


@pytest.fixture
def drafter(target):
    return Drafter.from_target(target, [0, 2], torch.tensor(HEAD_IDS))


@pytest.mark.parametrize("chunk", [7, 64])
def test_the_losss_gradient_equals_autograds(chunk):
    states = torch.randn(50, 16, requires_grad=True)
    head = (torch.randn(30, 16) * 0.3).requires_grad_()
    target_states, target_head = torch.randn(50, 16), torch.randn(30, 16) * 0.3
    loss, terms = DistillationLoss.apply(states, head, target_states, target_head, 0.5, chunk)
    gradients = torch.autograd.grad(3 * loss, (states, head))

    p = (target_states @ target_head.T).softmax(-1)
    log_q = (states @ head.T).log_softmax(-1)
    cross_entropy = -(p * log_q).sum(-1).mean()
    tv = 0.5 * (p - log_q.exp()).abs().sum(-1).mean()
    expected = torch.autograd.grad(3 * (cross_entropy + 0.5 * tv), (states, head))
    torch.testing.assert_close(terms, torch.stack([cross_entropy, tv]).detach(), atol=1e-5, rtol=1e-5)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-4)


def test_the_rate_rises_then_falls_to_zero():
    rates = [learning_rate(1.0, share / 100) for share in range(101)]
    assert rates[:4] == sorted(rates[:4])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert max(rates) > 0.99
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_an_epoch_of_batches_has_every_conversation_once_and_keeps_to_its_size():
    lengths = np.random.default_rng(2).integers(20, 90, 500)
    numbers = np.arange(500)
    selection = Selection(lengths, lengths // 2, numbers, numbers)
    visited: list[int] = []
    for batch in batches(selection, 1000, np.random.default_rng(4)):
        assert len(batch) * batch.lengths.max() <= 1000
        visited += batch.id_offsets.tolist()
        if len(visited) >= 500:
            break
    assert sorted(visited) == numbers.tolist()


def test_a_few_steps_lower_the_loss_and_raise_the_acceptance(target, store, drafter):
    before = evaluate(target, drafter, store, store.select())
    trainer = Trainer(target, drafter, TrainingPlan(until_s=0, peak_rate=1e-2))
    first = trainer.step(store, store.select(), 0.1)
    for _ in range(15):
        last = trainer.step(store, store.select(), 0.1)
    assert (last < first).all()
    after = evaluate(target, trainer.finish(), store, store.select())
    assert after.by_temperature[1.0] > before.by_temperature[1.0]


def test_training_ends_at_its_time(target, store, drafter, tmp_path):
    log = RunLog(tmp_path, time.time())
    plan = TrainingPlan(until_s=log.now() + 1.0, batch_tokens=1000)
    trained = train(target, drafter, store, store.select(), plan, log, "tiny")
    assert 1.0 <= log.now() < 3.0
    assert not any(parameter.requires_grad for parameter in trained.parameters)


def test_weights_that_are_not_finite_are_given_up_for_the_last_good_ones(target, store, drafter):
    trainer = Trainer(target, drafter, TrainingPlan(until_s=0))
    good = [parameter.detach().clone() for parameter in drafter.parameters]
    with torch.no_grad():
        drafter.head[0, 0] = torch.nan
    assert not trainer.step(store, store.select(), 0.1).isfinite().all()
    trainer.keep_or_go_back(finite=False)
    assert trainer.peak_rate == pytest.approx(3e-4)
    for parameter, kept in zip(trainer.finish().parameters, good, strict=True):
        assert torch.equal(parameter, kept)
