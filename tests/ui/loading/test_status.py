"""The status of a loaded pair, with what to know before the first message, and of loads and refusals."""

import pytest

import specdec_core as sd
from specdec_ui.loading import handlers as load_handlers, status
from specdec_ui.pair_check.handlers import load_progress
from specdec_ui.state.holder import EngineHolder
from specdec_ui.state.visitors import Visitor
from tests.support.replay import ReplayEngine, loaded_holder, replay_info, replay_presets

SLOW = sd.Check("size", "warning", "7 million", "7 million", "The drafter is as large as the target.")


def ready(**changes):
    report = changes.pop("report", None)
    return status.ready(loaded_holder(ReplayEngine(info=replay_info(**changes), report=report)).require())


def test_what_the_template_drops_is_said_as_text():
    html = ready(template_notes=("The template leaves out <b>every second</b> message.",))
    assert (
        '<p class="status-note">The template leaves out &lt;b&gt;every second&lt;/b&gt; message.</p>' in html
    )


def test_a_drafter_with_a_shorter_context_is_said():
    assert "The drafter holds 512 tokens of conversation" in ready(drafter_context_length=512)
    assert "status-note" not in ready()


def test_a_pair_that_is_no_faster_is_said():
    report = sd.PairReport("a", "a", (SLOW,))
    assert '<p class="status-note">The drafter is as large as the target.</p>' in ready(report=report)


def test_a_context_of_one_token_is_singular():
    assert "<dd>1 token</dd>" in ready(context_length=1)


def loads(load, name="a"):
    return [*load_handlers.load(Visitor(), EngineHolder(load), replay_presets("a"), name)]


def test_a_load_is_shown_before_its_first_step():
    def load(preset, on_progress, cancel):
        raise sd.LoadError("No weights.")

    first, *_ = loads(load)
    assert first.loading
    assert "Loading a" in first.status


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (sd.LoadError("No <weights>."), "a was not loaded. No &lt;weights&gt;."),
        (sd.LoadCancelledError("Cancelled."), "Loading a was cancelled."),
        (
            sd.IncompatiblePairError(sd.PairReport("a", "b", (sd.Check("x", "fail", "1", "2", "No."),))),
            "1 of 1 check failed: x",
        ),
    ],
)
def test_a_refusal_is_said_beside_the_button_too(error, said):
    def load(preset, on_progress, cancel):
        raise error

    html = load_progress(loads(load)[-1])
    assert said in html
    assert 'role="alert"' in html


def test_progress_and_success_are_shown_beside_the_button_too():
    def load(preset, on_progress, cancel):
        on_progress("Loading the target", 0.5)
        return ReplayEngine()

    steps = [load_progress(frame) for frame in loads(load)]
    assert "Loading the target" in steps[1]
    assert "<strong>a</strong> is loaded" in steps[-1]
