"""The slots' rules, restated for one conversation in plain Python."""

import pytest
import torch

from training.smollm2.inputs import Template
from training.smollm2.slots import MAX_REQUEST, MIN_REQUEST, Slots

TEMPLATE = Template(prefix=[1, 30, 31, 32], bridge=[40, 41, 42], end=2)
COUNT, STEPS = 24, 900


def _restated(sampled: list[int], max_positions: int) -> tuple[list[tuple[list[int], int]], list[int]]:
    """Return what one slot finishes, (ids, answer start) each, and its unfinished sequence."""
    prefix = len(TEMPLATE.prefix)
    finished, sequence, bridge, answer_start = [], list(TEMPLATE.prefix), [], None
    for draw in sampled:
        fed_bridge = bool(bridge)
        sequence.append(bridge.pop(0) if fed_bridge else draw)
        ended = sequence[-1] == TEMPLATE.end and not fed_bridge
        request = len(sequence) - prefix
        dropped = complete = False
        if answer_start is None and ended:
            if request < MIN_REQUEST:
                dropped = True
            else:
                bridge, answer_start = list(TEMPLATE.bridge), len(sequence) + len(TEMPLATE.bridge)
        elif answer_start is None:
            dropped = request > MAX_REQUEST
        else:
            complete = ended
        if not dropped and (complete or len(sequence) >= max_positions - 1):
            finished.append((sequence, answer_start))
            dropped = True
        if dropped:
            sequence, bridge, answer_start = list(TEMPLATE.prefix), [], None
    return finished, sequence


def _sampled(end_share: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(50, 400, (STEPS, COUNT), generator=generator)
    return ids.where(torch.rand(STEPS, COUNT, generator=generator) >= end_share, TEMPLATE.end)


@pytest.mark.parametrize(("max_positions", "end_share"), [(120, 0.03), (120, 0.15), (60, 0.008), (300, 0.01)])
def test_sequences_are_those_of_the_rules(max_positions, end_share):
    slots = Slots(COUNT, max_positions, TEMPLATE, torch.device("cpu"))
    sampled = _sampled(end_share)
    finished: list[list[tuple[list[int], int | None]]] = [[] for _ in range(COUNT)]
    for draws in sampled:
        slots.advance(draws)
        done = slots.finished.nonzero()[:, 0]
        for slot, length in zip(done.tolist(), slots.lengths()[done].tolist(), strict=True):
            start = int(slots.answer_start[slot]) if slots.answering[slot] else None
            finished[slot].append((slots.ids[slot, :length].tolist(), start))
        slots.restart(done)
    assert sum(map(len, finished)) > 20
    for slot in range(COUNT):
        expected, sequence = _restated(sampled[:, slot].tolist(), max_positions)
        assert finished[slot] == expected
        assert slots.ids[slot, : int(slots.lengths()[slot])].tolist() == sequence


def test_the_token_fed_next_is_the_last_of_the_sequence():
    slots = Slots(COUNT, 120, TEMPLATE, torch.device("cpu"))
    rows = torch.arange(COUNT)
    for draws in _sampled(0.05)[:300]:
        slots.advance(draws)
        running = ~slots.finished
        assert torch.equal(slots.current[running], slots.ids[rows, slots.positions][running])
        slots.restart(slots.finished)


def test_a_finished_slot_stands_still_until_its_restart():
    slots = Slots(COUNT, 120, TEMPLATE, torch.device("cpu"))
    for draws in _sampled(0.05)[:200]:
        slots.advance(draws)
    assert slots.finished.any()
    fields = (slots.ids, slots.positions, slots.current, slots.answering, slots.answer_start)
    before = [field[slots.finished].clone() for field in fields]
    which = slots.finished.clone()
    for draws in _sampled(0.5)[:50]:
        slots.advance(draws)
    for field, kept in zip(fields, before, strict=True):
        assert torch.equal(field[which], kept)
    slots.restart(which)
    assert (slots.positions[which] == len(TEMPLATE.prefix) - 1).all()
    assert not slots.finished[which].any()
