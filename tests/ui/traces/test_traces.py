"""Traces: saved and read back unchanged, without what belongs to the machine, judged when they are read."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import specdec_core as sd
from specdec_ui.compare import handlers as compare_handlers
from specdec_ui.compare.lanes import LaneChoice
from specdec_ui.parts.trace_files import TraceFileError, file_name, from_json, to_json
from specdec_ui.state.visitors import KEPT_TRACES, Visitor
from specdec_ui.traces import tab as traces
from specdec_ui.traces.picture import COLUMNS, picture
from tests.support.comparisons import VALUES
from tests.support.made_up_traces import made_up
from tests.support.replay import STORY, loaded_holder

HOSTILE = "</text><script>alert(1)</script> & ]]> \ud800 \x00 ${x} \u202eabc\u202c " + "x" * 300 + "字" * 90


@pytest.mark.parametrize("gamma", [0, 4])
def test_a_trace_comes_back_as_it_was(gamma):
    trace = made_up(gamma=gamma)
    assert from_json(to_json(trace).encode()) == trace


def test_alternatives_and_biases_come_back_too():
    trace = made_up()
    likely = [sd.Alternative(4, " x", 0.5, 0.25), sd.Alternative(2, "", 0.1)]
    tokens = [
        replace(token, alternatives=likely, drafter_alternatives=[]) for token in trace.rounds[2].tokens
    ]
    rounds = [*trace.rounds[:2], replace(trace.rounds[2], tokens=tokens), *trace.rounds[3:]]
    trace = replace(trace, rounds=rounds, settings={**trace.settings, "logit_bias": {"15": -2.0}})
    assert from_json(to_json(trace).encode()) == trace


def test_a_file_has_what_the_answer_was_made_with():
    data = json.loads(to_json(made_up()))
    assert data["settings"]["seed"] == 7
    assert data["pair"]["device"] == "CPU"
    assert {"python", "torch", "transformers"} <= set(data["versions"])
    assert data["stats"]["acceptance_rate"] > 0
    assert data["finish_reason"] == "eos"


def test_a_file_holds_no_path_of_the_machine():
    text = to_json(made_up())
    assert "somebody" not in text
    assert json.loads(text)["pair"]["target"] == "target"
    assert json.loads(text)["pair"]["drafter"] == "owner/small"


def damaged(**changes):
    return json.dumps(json.loads(to_json(made_up())) | changes).encode()


def with_stats(**changes):
    return damaged(stats=json.loads(to_json(made_up()))["stats"] | changes)


def with_round(**changes):
    data = json.loads(to_json(made_up()))
    data["rounds"][2] |= changes
    return json.dumps(data).encode()


def with_token(**changes):
    data = json.loads(to_json(made_up()))
    data["rounds"][2]["tokens"][0] |= changes
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"PNG", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a trace"),
        (b'{"rounds": []}', "not a trace"),
        (damaged(version=9), "version 9"),
        (with_round(thought=5), "text, thought and gamma_reason must be text"),
        (damaged(stats=json.loads(to_json(made_up()))["stats"] | {"thought_tokens": 1.5}), "thought_tokens"),
        (
            damaged(stats=json.loads(to_json(made_up()))["stats"] | {"thought_tokens": 10**6}),
            "thought_tokens",
        ),
        (with_token(alternatives=[{"id": 1, "text": "", "target_prob": 0.1}] * 21), "more than 20"),
        (damaged(settings={"logit_bias": {"5": float("inf")}}), "finite"),
        (with_token(alternatives=[3]), "alternative must be a JSON object"),
        (with_token(alternatives=[{"id": 1, "text": 5, "target_prob": 0.5}]), "alternative must have text"),
        (with_token(drafter_alternatives=[{"id": 1, "text": "", "target_prob": 7}]), "from 0 to 1"),
        (damaged(rounds=[]), "at least one round"),
        (damaged(rounds="x"), "at least one round"),
        (damaged(rounds=[3]), "round 0"),
        (damaged(settings=3), "settings"),
        (damaged(prompt=3), "prompt"),
        (damaged(stats={"rounds": 1}), "Missing field"),
        (with_round(draft_s="fast"), "draft_s"),
        (with_round(draft_s=float("nan")), "draft_s"),
        (with_round(tokens=3), "tokens"),
        (with_round(text=None), "text"),
        (with_round(colour="red"), "colour"),
        (with_round(index=-1), "index"),
        (with_round(gamma_reason=3), "gamma_reason"),
        (with_round(source="magic"), "source must be model or ngram"),
        (with_round(gamma_gain="much"), "gamma_gain"),
        (with_round(gamma_cut=1), "gamma_cut"),
        (with_token(kind="guessed"), "guessed"),
        (with_token(kind=["plain"]), "kind"),
        (with_token(text=3), "text"),
        (with_token(target_prob=7), "probability"),
        (with_token(id="x"), "id"),
    ],
)
def test_what_is_no_trace_is_refused_with_what_is_wrong(data, said):
    with pytest.raises(TraceFileError, match=said):
        from_json(data)


def test_a_trace_from_before_the_codes_opens_with_its_reasons_as_text():
    data = json.loads(with_round(gamma_reason="auto: 1.50× the plain rate is expected"))
    for rnd in data["rounds"]:
        del rnd["gamma_gain"], rnd["gamma_cut"]
    trace = from_json(json.dumps(data).encode())
    assert trace.rounds[2].gamma_reason == "auto: 1.50× the plain rate is expected"


@pytest.mark.parametrize("text", [STORY, HOSTILE, "a\n\nb\tc"])
def test_the_picture_is_one_well_formed_file_without_scripts_or_addresses(text):
    drawn = picture(made_up(text, prompt=text))
    root = ElementTree.fromstring(drawn)
    assert {element.tag.split("}")[1] for element in root.iter()} <= {
        "svg", "title", "desc", "rect", "text", "line"
    }  # fmt: skip
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
    width = float(root.get("width"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        if length := element.get("textLength"):
            assert float(element.get("x")) + float(length) <= width
    assert width > COLUMNS * 8


def test_the_picture_shows_every_word_of_the_answer():
    root = ElementTree.fromstring(picture(made_up()))
    shown = " ".join(element.text for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert all(word.strip('.,"?') in shown for word in STORY.split())


def test_hostile_facts_never_become_markup():
    trace = made_up(prompt="<img src=x onerror=alert(1)>")
    trace = replace(trace, pair={"title": "<script>x</script>", "device": "<b>"})
    shown = traces.facts_html(trace)
    assert not any(tag in shown for tag in ("<img", "<script", "<b>"))


def test_the_token_view_shows_every_token_of_the_trace():
    facts, lines, *_ = traces.show(made_up())
    shown = [token for line in map(json.loads, lines.splitlines()) for token in line.get("tokens", [])]
    assert len(shown) == sum(len(rnd.tokens) for rnd in made_up().rounds)
    assert "Tell me a story." in facts


def test_answers_of_the_chat_and_lanes_of_a_comparison_are_kept():
    visitor, holder = Visitor(), loaded_holder()
    list(visitor.ask("Hello", sd.Settings(), holder))
    list(compare_handlers.run(visitor, holder, "Compare this", VALUES, LaneChoice()))
    labels = [trace.label for trace in visitor.traces.values()]
    assert [label.split(" · ")[:2] for label in labels] == [
        ["Hello", "gamma 4"],
        ["Compare this", "plain decoding"],
        ["Compare this", "gamma 4"],
    ]


def test_of_many_answers_the_latest_are_kept():
    visitor, holder = Visitor(), loaded_holder()
    for at in range(KEPT_TRACES + 3):
        list(visitor.ask(str(at), sd.Settings(), holder))
    assert [trace.prompt for trace in visitor.traces.values()] == [
        str(at) for at in range(3, KEPT_TRACES + 3)
    ]


@pytest.mark.parametrize(
    ("prompt", "name"), [("A boat!", "specdec-a-boat.svg"), ("../字", "specdec-trace.svg")]
)
def test_the_name_of_a_file_is_taken_everywhere(prompt, name):
    assert file_name(made_up(prompt=prompt), "svg") == name


def test_the_picture_names_the_end_and_drafts_of_it_and_no_other_token_without_text():
    tokens = [sd.Token(9, "", "accepted"), sd.Token(2, "", "rejected"), sd.Token(5, " cat", "correction")]
    rounds = [
        sd.Round(1, 0, 4, "fixed", tokens, " cat", 0.0, 0.0, 0.0),
        sd.Round(2, 2, 4, "fixed", [sd.Token(2, "", "bonus")], "", 0.0, 0.0, 0.0, finish_reason="eos"),
    ]
    trace = replace(made_up(), rounds=rounds)
    texts = [each.text for each in ElementTree.fromstring(picture(trace)).iter() if each.tag.endswith("text")]
    assert [text for text in texts if text in ("∅", "end", "+end")] == ["∅", "end", "+end"]
    unfinished = replace(trace, rounds=rounds[:1])
    assert unfinished.end_id is None
