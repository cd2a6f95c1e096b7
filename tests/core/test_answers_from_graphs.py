"""Answers from graphs that cross the end of a bucket: captures between rounds, memory that runs out anywhere.

Replays compute again here, in place of a GPU's.
"""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specdec_core.bench.shapes import word_tokenizer
from specdec_core.drafting.length import StepCosts
from specdec_core.errors import AnswerError
from specdec_core.loading.warm_up import rehearse
from specdec_core.pair import LoadedPair
from specdec_core.runners import CudaGraphRunner, static
from specdec_core.sampling import DeviceSampling
from specdec_core.session import Session
from specdec_core.settings import Settings
from specdec_core.trace import emitted_ids
from tests.support.recomputed_graphs import Recomputed
from tests.support.tiny_models import VOCAB, noisy_copy, tiny_model

BUCKET = 64
PROMPT = " ".join(f"w{n % 90 + 3}" for n in range(0, 400, 7))
"""58 tokens."""
RULES = {
    "greedy": {"temperature": 0.0},
    "rejection": {"temperature": 1.0},
    "coupled": {"temperature": 1.0, "verification": "coupled"},
    "n-gram": {"temperature": 0.3, "drafting": "ngram"},
    "both": {"temperature": 0.3, "drafting": "both"},
    "plain": {"temperature": 1.0, "gamma": 0},
    "automatic": {"temperature": 1.0, "gamma": "auto"},
}


@pytest.fixture(autouse=True)
def _small_buckets(monkeypatch):
    monkeypatch.setattr(static, "FIRST_BUCKET", BUCKET)


class _Watched(CudaGraphRunner):
    """Counts the forwards that pause for a capture."""

    pauses = 0

    def forward(self, *arguments, **options):
        """See Runner.forward."""
        before = self._capture.captures
        result = super().forward(*arguments, **options)
        self.pauses += self._capture.captures > before
        return result


TARGET = tiny_model("llama")
DRAFTER = noisy_copy(TARGET, 0.05)


def _pair() -> LoadedPair:
    target, drafter = (
        _Watched(model, capture=Recomputed(), why_unfused="for comparison") for model in (TARGET, DRAFTER)
    )
    pair = LoadedPair(target, drafter, word_tokenizer(VOCAB), frozenset())
    # In the place where the pair of a GPU keeps it.
    pair.__dict__["sampling"] = DeviceSampling(torch.device("cpu"), VOCAB)
    for runner in (target, drafter):
        runner.pauses = 0
    return pair


def _settings(rule: str, **changed) -> Settings:
    return Settings(**{"max_new_tokens": 80, "seed": 1, "gamma": 3, **RULES[rule], **changed})


def _answer(pair: LoadedPair, settings: Settings, prompt: str = PROMPT) -> list[int]:
    if settings.gamma == "auto":
        pair.costs["model"] = StepCosts(0.1, {1: 1.0, 9: 1.2})
    return emitted_ids(list(Session(pair).rounds(prompt, settings, lambda: False)))


@pytest.mark.parametrize("rule", RULES)
def test_no_round_pauses_for_a_capture(rule):
    pair, settings = _pair(), _settings(rule)
    rehearse(pair, settings)
    for runner in pair.runners:
        runner.pauses = 0
    first = _answer(pair, settings)
    assert [runner.pauses for runner in pair.runners] == [0, 0]
    assert pair.target.captured > 0
    short = _answer(pair, settings, "w3 w9 w27")
    assert [runner.pauses for runner in pair.runners] == [0, 0]
    if rule == "automatic":
        return  # gamma depends on times
    fresh = _pair()
    assert first == _answer(fresh, settings)
    assert short == _answer(fresh, settings, "w3 w9 w27")


def test_the_first_answer_to_a_long_prompt_pauses_in_no_round():
    pair, settings = _pair(), _settings("rejection")
    rehearse(pair, settings)
    for runner in pair.runners:
        runner.pauses = 0
    _answer(pair, settings, f"{PROMPT} {PROMPT}")
    assert [runner.pauses for runner in pair.runners] == [0, 0]


_aten = torch.ops.aten
_FACTORIES = {
    _aten.clone,
    _aten.new_zeros,
    _aten.zeros,
    _aten.zeros_like,
    _aten.empty,
    _aten.full,
    _aten.arange,
    _aten.cat,
    _aten.masked_fill,
    _aten.linear,
}
"""Operations that allocate, one at least of every kind of step."""


def _place() -> tuple[str, int] | None:
    """The innermost line of our own code that is being run."""
    frame = sys._getframe()
    while frame is not None and "specdec_core" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame and (frame.f_code.co_filename, frame.f_lineno)


class _Allocations(TorchDispatchMode):
    """Counts allocations and lets memory run out at those from number `first`, `times` of them.

    `kinds` has the operation and the place of each.
    """

    def __init__(self, first: int = 0, times: int = 0) -> None:
        super().__init__()
        self.count = 0
        self.kinds: list[tuple] = []
        self._short = range(first, first + times)

    def first_and_last_of_each_kind(self) -> list[int]:
        """Numbers of allocations, two of each kind that there is more than once."""
        numbered = list(enumerate(self.kinds, start=1))
        first = {kind: number for number, kind in reversed(numbered)}
        last = {kind: number for number, kind in numbered}
        return sorted({*first.values(), *last.values()})

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in _FACTORIES:
            self.count += 1
            self.kinds.append((func.overloadpacket, _place()))
            if self.count in self._short:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("times", "every"), [pytest.param(1, None, marks=pytest.mark.slow), (1, 13), (2, 17), (10**9, 29)]
)
def test_wherever_memory_runs_out_the_answer_is_whole_or_ends_in_words(times, every):
    """It crosses the end of the first bucket, where buffers grow and graphs are captured.

    Memory runs out at every so-many-th allocation, or at the first and the last one of each kind.
    """
    settings = _settings("rejection", max_new_tokens=12)
    whole = _Allocations()
    pair = _pair()
    with whole:
        wanted = _answer(pair, settings)
    short_wanted = _answer(pair, settings, "w3 w9 w27")
    ended = 0
    some = range(1, whole.count + 1, every) if every else whole.first_and_last_of_each_kind()
    for first in some:
        pair = _pair()
        try:
            with _Allocations(first, times):
                got = _answer(pair, settings)
        except AnswerError as error:
            ended += "Memory ran out" in str(error)
        else:
            assert got == wanted, f"after a shortage at allocation {first} of {whole.count}"
        assert _answer(pair, settings) == wanted, f"the answer after a shortage at allocation {first}"
        assert _answer(pair, settings, "w3 w9 w27") == short_wanted
    assert ended == 0 or times > 1
    assert ended > 0 or times < 10**9
