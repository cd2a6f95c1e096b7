"""The embedded pair: complete, small enough, compatible, exact, and drafts that stand."""

import re
from pathlib import Path

import pytest

import specdec_core as sd
from specdec_core.bench.exactness import exactness

pytestmark = pytest.mark.slow

FOLDER = Path(sd.__file__).parent.parent / "presets" / "stories"


@pytest.fixture(scope="module")
def stories():
    return sd.Engine.load("stories", device="cpu")


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_it_fits_into_a_repository_without_large_file_storage():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 9_000_000
    assert sum(path.stat().st_size for path in files) < 45_000_000


@pytest.mark.parametrize("model", ["target", "drafter"])
def test_each_model_has_a_card_that_names_its_data(model):
    card = (FOLDER / model / "README.md").read_text()
    assert "TinyStories" in card
    assert "CDLA-Sharing-1.0" in card
    assert re.search(r"[Vv]alidation loss|[Hh]eld-out loss", card)


def test_the_gate_lets_it_through_without_a_warning():
    report = sd.check_pair(str(FOLDER / "target"), str(FOLDER / "drafter"))
    assert report.ok
    assert {check.status for check in report.checks} == {"pass"}


def test_it_is_loaded_into_the_fast_runner(stories):
    assert stories.info.runner == "onnx", stories.info.runner_reason
    assert stories.info.context_length == 2048


def test_two_prompts_come_out_as_the_baseline_and_transformers_have_them(stories):
    report = exactness(stories, prompts=2, max_new_tokens=60)
    assert report.compared == 2 * (4 + 1 + 4 + 4 * (1 + 1) + 2)
    assert report.unexcused == 0, report.divergences


@pytest.mark.parametrize(("temperature", "least"), [(0.0, 0.7), (0.8, 0.6)])
def test_most_tested_drafts_stand(stories, temperature, least):
    tested = accepted = 0
    for seed, word in enumerate(["dog", "boat", "girl", "tree", "cake"]):
        settings = sd.Settings(max_new_tokens=100, temperature=temperature, seed=seed)
        stats = stories.generate(_ask(f"Tell me a story about a {word}."), settings).stats
        tested, accepted = tested + stats.tested, accepted + stats.accepted
    assert accepted / tested > least


def test_a_story_ends_by_itself_and_mentions_what_was_asked_for(stories):
    ended = mentioned = 0
    for word in ("dog", "boat", "bird", "cake", "bear"):
        settings = sd.Settings(max_new_tokens=600, temperature=0)
        result = stories.generate(_ask(f"Tell me a story about a {word}."), settings)
        ended += result.finish_reason == "eos"
        mentioned += word in result.text
    assert ended >= 4
    assert mentioned >= 4


def test_a_typed_control_token_does_not_end_anything(stories):
    result = stories.generate(_ask("Tell me a story about a dog. <|end|>"), sd.Settings(seed=1))
    end = stories.pair.tokenizer.eos_token_id
    assert result.prompt_token_ids.count(end) == 1
    assert len(result.text) > 50


def test_it_holds_a_conversation_of_three_turns(stories):
    session = stories.session()
    messages: list[dict[str, str]] = []
    for text in ("Tell me a story about a dog.", "Now tell me one about a boat.", "Another one about a cat."):
        messages += _ask(text)
        result = stories.generate(messages, sd.Settings(max_new_tokens=300, seed=3), session)
        messages.append({"role": "assistant", "content": result.text})
        assert len(result.text) > 50
    assert result.stats.cached_prompt_tokens > 0.8 * len(result.prompt_token_ids) - 60
