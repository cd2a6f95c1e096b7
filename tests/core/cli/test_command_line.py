"""The command line: its JSON, its exit codes, and errors on stderr."""

import json
import shutil
import sys
from io import StringIO

import pytest
import torch

from specdec_core.cli import main
from specdec_core.loading.memory import memory_need
from specdec_core.loading.weights import ModelSource
from tests.support.hub_server import COMMIT
from tests.support.thinking_model import ANSWER, THOUGHT, save_thinking_model
from tests.support.tiny_pair import byte_level_tokenizer

STATS = {
    "rounds", "drafted", "tested", "accepted", "acceptance_rate", "accepted_per_drafted", "block_efficiency",
    "acceptance_by_position", "tokens_per_second", "time_to_first_token_s", "draft_s", "verify_s",
    "overhead_s",
}  # fmt: skip


def test_generate_prints_one_json_object_and_nothing_else(pair, capsys):
    assert (
        main(["generate", *pair, "--message", "Once", "--max-new-tokens", "12", "--seed", "7", "--json"]) == 0
    )
    data = json.loads(capsys.readouterr().out)
    assert set(data) >= {"text", "token_ids", "prompt_token_ids", "finish_reason", "stats", "rounds"}
    assert set(data["stats"]) >= STATS
    assert len(data["token_ids"]) <= 12


def test_generate_prints_the_text_and_figures_on_stderr(pair, capsys):
    assert (
        main(["generate", *pair, "--prompt", "Once upon", "--max-new-tokens", "8", "--temperature", "0"]) == 0
    )
    printed = capsys.readouterr()
    assert printed.out.strip()
    assert "tokens/s" in printed.err


@pytest.mark.parametrize("gamma", ["0", "3", "auto"])
@pytest.mark.parametrize("drafting", ["model", "ngram", "both"])
def test_every_gamma_and_drafting_greedily_gives_one_text(pair, capsys, gamma, drafting):
    arguments = ["generate", *pair, "--prompt", "Once upon a time", "--temperature", "0", "--json"]
    arguments += ["--max-new-tokens", "20"]
    main([*arguments, "--gamma", "0"])
    wanted = json.loads(capsys.readouterr().out)["token_ids"]
    assert main([*arguments, "--gamma", gamma, "--drafting", drafting]) == 0
    assert json.loads(capsys.readouterr().out)["token_ids"] == wanted


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--gamma", "-1"], "gamma"),
        (["--gamma", "99"], "gamma"),
        (["--top-p", "0"], "top_p"),
        (["--temperature", "-2"], "temperature"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "inf"], "temperature"),
        (["--top-p", "nan"], "top_p"),
        (["--min-p=-inf"], "min_p"),
        (["--top-k", "-1"], "top_k"),
        (["--seed", "99999999999999999999"], "seed"),
        (["--stop", ""], "stop"),
        (["--typical-p", "0"], "typical_p"),
        (["--repetition-penalty", "-1"], "repetition_penalty"),
        (["--frequency-penalty", "3"], "frequency_penalty"),
        (["--alternatives", "50"], "alternatives"),
        (["--banned-tokens", "-4"], "banned_tokens"),
        (["--banned-tokens", "99999"], "banned_tokens"),
        (["--logit-bias", "4=1000"], "logit_bias"),
        (["--logit-bias", "99999=1"], "logit_bias"),
        (["--thinking", "on"], "thinking"),
        (["--device", "auto", "--max-memory", "cpu=0GB"], "max_memory"),
        (["--device", "auto", "--max-memory", "cpu=infGB"], "max_memory"),
        (["--device", "auto", "--max-memory", "cpu=nan"], "max_memory"),
    ],
)
def test_a_wrong_setting_ends_with_2_and_names_it_on_stderr(pair, capsys, wrong, words):
    assert main(["generate", *pair, "--prompt", "x", *wrong, "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err


NOT_NUMBERS = [
    ["--gamma", "²"],
    ["--gamma", "--5"],
    ["--top-k", "x"],
    ["--seed", "1.5"],
    ["--banned-tokens", "the"],
    ["--logit-bias", "4"],
    ["--logit-bias", "the=2"],
    ["--logit-bias", "4=much"],
    ["--thinking", "maybe"],
]


@pytest.mark.parametrize("wrong", NOT_NUMBERS)
def test_a_number_that_is_none_is_refused_by_the_parser(pair, capsys, wrong):
    with pytest.raises(SystemExit) as ended:
        main(["generate", *pair, "--prompt", "x", *wrong])
    assert ended.value.code == 2
    assert f"argument {wrong[0]}" in capsys.readouterr().err


def test_an_empty_message_ends_with_2(pair, capsys):
    assert main(["generate", *pair, "--message", "", "--json"]) == 2
    assert "empty" in capsys.readouterr().err


def test_an_unknown_preset_ends_with_2_and_names_the_known_ones(capsys):
    assert main(["generate", "--preset", "storys", "--prompt", "x"]) == 2
    assert "stories" in capsys.readouterr().err


def test_check_ends_with_0_for_a_compatible_pair(pair_folders, capsys):
    assert main(["check", *pair_folders]) == 0
    assert "Compatible" in capsys.readouterr().out


def test_check_ends_with_3_for_an_incompatible_pair_and_says_why(pair_folders, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(pair_folders[1], other)
    byte_level_tokenizer(vocab_size=380).save_pretrained(other)
    assert main(["check", pair_folders[0], str(other), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert "fail" in {check["status"] for check in report["checks"]}


def test_check_ends_with_2_where_nothing_can_be_checked(pair_folders, capsys):
    assert main(["check", pair_folders[0], "/no/such/folder", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "/no/such/folder" in printed.err


def test_generate_with_an_incompatible_pair_ends_with_3(pair_folders, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(pair_folders[1], other)
    byte_level_tokenizer(vocab_size=380).save_pretrained(other)
    assert main(["generate", "--target", pair_folders[0], "--drafter", str(other), "--prompt", "x"]) == 3
    assert "Incompatible" in capsys.readouterr().err


def test_presets_lists_the_embedded_pair(capsys):
    assert main(["presets"]) == 0
    assert "stories" in capsys.readouterr().out
    assert main(["presets", "--json"]) == 0
    assert {"stories", "llama-3.2", "gemma"} <= set(json.loads(capsys.readouterr().out))


def test_presets_of_the_operator_s_folder_are_found_beside_those_that_ship(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.toml").write_text(
        'title = "Mine"\ndescription = "d"\nlicense = "MIT"\n[target]\nmodel = "owner/target"\n'
        "[settings]\ngamma = 0\n"
    )
    monkeypatch.setenv("SPECDEC_PRESETS", str(tmp_path))
    assert main(["presets"]) == 0
    printed = capsys.readouterr().out
    assert "stories" in printed
    assert "mine" in printed


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no presets folder {path} (SPECDEC_PRESETS)"),
        (lambda path: path.write_text("x"), "{path} (SPECDEC_PRESETS) cannot be read: Not a directory"),
        (lambda path: path.mkdir(), "{path} (SPECDEC_PRESETS) has no *.toml file"),
    ],
    ids=["missing", "a file", "empty"],
)
@pytest.mark.parametrize(
    "command", [["presets"], ["generate", "--preset", "stories", "--prompt", "x"]], ids=str
)
def test_a_folder_of_presets_that_is_none_is_refused_by_its_name(
    tmp_path, monkeypatch, capsys, make, words, command
):
    path = tmp_path / "presets"
    make(path)
    monkeypatch.setenv("SPECDEC_PRESETS", str(path))
    assert main(command) == 2
    assert words.format(path=path) in capsys.readouterr().err


@pytest.fixture
def foreign_command(tmp_path, monkeypatch):
    """Install a package whose entry point `shout` is a function of this source."""

    def install(source: str) -> None:
        metadata = tmp_path / "foreign-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[specdec.commands]\nshout = foreign_shout:register\n")
        (tmp_path / "foreign_shout.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "foreign_shout", raising=False)

    return install


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def register(commands): 1 / 0", "ZeroDivisionError: division by zero"),
        ("", "AttributeError"),
    ],
)
def test_a_command_of_another_package_that_fails_to_load_is_left_out_with_a_warning(
    foreign_command, capsys, source, reason
):
    foreign_command(source)
    assert main(["presets"]) == 0
    printed = capsys.readouterr()
    assert "stories" in printed.out
    (warning,) = printed.err.splitlines()
    assert warning.startswith(f"warning: the command shout of another package is left out: {reason}")


@pytest.mark.parametrize(
    "error",
    ["MemoryError()", "RuntimeError('CUDA error: out of memory')", "OSError(12, 'Cannot allocate memory')"],
)
def test_memory_that_runs_out_anywhere_in_a_command_is_an_error_in_words(foreign_command, capsys, error):
    foreign_command(
        f"def fail(arguments): raise {error}\n"
        "def register(commands): commands.add_parser('shout').set_defaults(run=fail)\n"
    )
    assert main(["shout"]) == 1
    assert "emory" in capsys.readouterr().err


def test_another_failure_in_a_command_keeps_its_traceback(foreign_command):
    foreign_command(
        "def fail(arguments): raise RuntimeError('a bug')\n"
        "def register(commands): commands.add_parser('shout').set_defaults(run=fail)\n"
    )
    with pytest.raises(RuntimeError, match="a bug"):
        main(["shout"])


def test_bans_and_biases_by_id_change_the_answer_and_alternatives_are_in_the_json(pair, capsys):
    ask = [
        "generate",
        *pair,
        "--prompt",
        "Once upon",
        "--max-new-tokens",
        "8",
        "--temperature",
        "0",
        "--json",
    ]

    def answer(*options: str) -> dict:
        assert main([*ask, *options]) == 0
        return json.loads(capsys.readouterr().out)

    plain = answer()
    banned = [option for token in set(plain["token_ids"]) for option in ("--banned-tokens", str(token))]
    assert not set(answer(*banned)["token_ids"]) & set(plain["token_ids"])
    assert set(answer("--logit-bias", "70=100", "--logit-bias", "71=99")["token_ids"]) == {70}
    assert plain["rounds"][0]["tokens"][0]["alternatives"] is None
    shown = answer("--alternatives", "3")
    assert shown["token_ids"] == plain["token_ids"]
    for rnd in shown["rounds"]:
        for token in rnd["tokens"]:
            likely = token["alternatives"]
            assert len(likely) == 3
            if token["kind"] != "rejected" and token["kind"] != "untested":
                assert (likely[0]["id"], likely[0]["text"]) == (token["id"], token["text"])
            assert len(token["drafter_alternatives"]) == (3 if token["drafter_prob"] is not None else 0)


@pytest.fixture(scope="module")
def thinking(tmp_path_factory) -> str:
    return save_thinking_model(tmp_path_factory.mktemp("thinking"))


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("Is it?\n", f"> {ANSWER}\n> "),
        ("/thoughts\nIs it?\n", f"> > {THOUGHT}\n\n{ANSWER}\n> "),
        ("/drafts\nIs it?\n", f"> > {ANSWER}\n> "),
    ],
)
def test_a_thought_is_left_out_of_a_chat_unless_it_is_asked_for(
    thinking, typed, printed, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", StringIO(typed))
    assert main(["chat", "--target", thinking, "--temperature", "0"]) == 0
    out, err = capsys.readouterr()
    assert out.replace("\n> \n> ", "\n> ") == printed
    assert "/thoughts shows or hides" in err
    assert "7 tokens of thought, 5 of answer" in err


def test_a_message_without_an_answer_is_no_part_of_the_conversation(thinking, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", StringIO("Is it?\nIs it?\n"))
    assert main(["chat", "--target", thinking, "--temperature", "0", "--max-new-tokens", "3"]) == 0
    err = capsys.readouterr().err
    assert err.count("note: no answer came, so the message is no part of the conversation.") == 2
    assert err.count("3 tokens of thought, 0 of answer") == 2
    assert "error" not in err


def test_a_terminal_shows_one_word_in_place_of_a_thought(thinking, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", StringIO("Is it?\n"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["chat", "--target", thinking, "--temperature", "0"]) == 0
    assert f"\033[2mThinking…\033[0m\n\n{ANSWER}" in capsys.readouterr().out


def test_a_switched_off_thought_is_in_no_json(thinking, capsys):
    ask = ["generate", "--target", thinking, "--message", "Is it?", "--temperature", "0", "--json"]
    assert main(ask) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["text"], data["thought"], data["stats"]["thought_tokens"]) == (ANSWER, THOUGHT, 7)
    assert main([*ask, "--thinking", "off"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["text"], data["thought"], data["stats"]["thought_tokens"]) == (ANSWER, "", 0)


def test_chat_answers_what_is_typed_and_survives_an_empty_line(pair, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", StringIO("Once upon a time\n\nmore\n/clear\nagain\n/quit\n"))
    assert main(["chat", *pair, "--max-new-tokens", "8", "--seed", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("first token after") == 3
    assert "empty" in printed.err


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_loading_is_and_a_file_does_not(pair_folders, capsys, monkeypatch):
    command = [
        "generate",
        "--target",
        pair_folders[0],
        "--gamma",
        "0",
        "--prompt",
        "a",
        "--max-new-tokens",
        "2",
    ]
    assert main(command) == 0
    assert "Loading the target" not in capsys.readouterr().err
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert main(command) == 0
    assert "\x1b[KLoading the target" in terminal.getvalue()
    assert "\x1b[K\r" in terminal.getvalue()


def test_check_reads_the_revisions_that_are_asked_for(on_the_hub, capsys):
    names = ["check", "owner/target", "owner/drafter"]
    assert main([*names, "--revision", COMMIT, "--drafter-revision", COMMIT]) == 0
    assert main([*names, "--drafter-revision", "v9"]) == 2
    assert "owner/drafter has no revision 'v9'" in capsys.readouterr().err


def test_a_target_is_split_within_the_memory_that_is_given(pair_folders, capsys):
    """Room for the pair's caches and its drafter, and for about half of the target."""
    arguments = [
        "generate",
        "--target",
        pair_folders[0],
        "--drafter",
        pair_folders[1],
        "--prompt",
        "Once",
        "--json",
    ]
    arguments += ["--temperature", "0", "--max-new-tokens", "8", "--device", "auto"]
    assert main(arguments) == 0
    wanted = json.loads(capsys.readouterr().out)["token_ids"]
    sources = [ModelSource(folder) for folder in pair_folders]
    both = memory_need(sources, torch.device("cpu"), packs=False).total_bytes
    assert main([*arguments, "--max-memory", f"cpu={(both - 300_000) // 1000}KB"]) == 0
    assert json.loads(capsys.readouterr().out)["token_ids"] == wanted
    with pytest.raises(SystemExit):
        main([*arguments, "--max-memory", "cpu"])
    assert main([*arguments, "--max-memory", "cpu=lots"]) == 2


def test_a_drafter_can_be_quantized_alone_where_there_is_a_gpu(pair, capsys):
    assert main(["generate", *pair, "--prompt", "x", "--drafter-quantization", "nf4"]) == 1
    assert "nf4 quantization needs a CUDA device" in capsys.readouterr().err
