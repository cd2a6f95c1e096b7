"""Standard streams of a command: readers that go away, full disks, encodings, undecodable input, Ctrl-C."""

import io
import os
import signal
import subprocess
import sys

import pytest

from specdec_core import Engine, Settings
from specdec_core.cli import main
from specdec_core.cli.chat import chat
from specdec_core.cli.streams import CLOSED_PIPE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs pipes, signals and /dev/full")

ANSWER = ["--max-new-tokens", "30", "--temperature", "3", "--seed", "1", "--gamma", "2"]


@pytest.fixture(params=["text", "json", "presets", "chat"])
def command(request, pair, monkeypatch) -> list[str]:
    """A command that writes to stdout."""
    monkeypatch.setattr("sys.stdin", io.StringIO("Once upon a time\nmore\n"))
    generate = ["generate", *pair, "--prompt", "Once", *ANSWER]
    return {
        "text": generate,
        "json": [*generate, "--json"],
        "presets": ["presets", "--json"],
        "chat": ["chat", *pair, *ANSWER],
    }[request.param]


def test_a_reader_that_has_gone_ends_a_command_quietly(command, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        assert main(command) == CLOSED_PIPE
    assert "error" not in capsys.readouterr().err


def test_a_full_disk_is_an_error_with_its_reason(command, monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(command) == 1
    assert "error: [Errno 28] No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_that_was_closed_before_the_start_is_an_empty_one(pair, monkeypatch, capsys, name):
    monkeypatch.setattr("sys.stdin", io.StringIO("Once upon a time\nmore\n"))
    monkeypatch.setattr(f"sys.{name}", None)
    assert main(["chat", *pair, *ANSWER]) == 0
    getattr(sys, name).close()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_character_that_the_encoding_lacks_is_replaced(pair, monkeypatch, capsys, encoding, stream):
    written = io.BytesIO()
    monkeypatch.setattr(f"sys.{stream}", io.TextIOWrapper(written, encoding=encoding))
    prompt = "Ten 🦊, naïve 漢字" if stream == "stdout" else "\udce9 cannot be encoded 🦊"
    code = main(["generate", *pair, "--prompt", prompt, *ANSWER])
    assert code == (0 if stream == "stdout" else 2)
    text = written.getvalue().decode(encoding)
    if stream == "stdout":
        assert not text.isascii() if encoding == "utf-8" else "?" in text
    else:
        assert "lone surrogate" in text


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_typed_line_that_is_not_text_is_not_sent_and_the_next_one_is(pair, monkeypatch, capsys, errors):
    typed = io.BytesIO(b"caf\xe9\nOnce upon a time\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(typed, encoding="utf-8", errors=errors))
    assert main(["chat", *pair, *ANSWER]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("not sent: the line is not utf-8 text") == 1
    assert printed.err.count("first token after") == 1


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "specdec_core", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_python_s_own_end_says_nothing_of_a_closed_pipe_either():
    process = _start("presets", "--json")
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", CLOSED_PIPE)


def test_ctrl_c_in_an_answer_ends_the_command_without_a_traceback(pair):
    long = ["--max-new-tokens", "400", "--temperature", "3", "--gamma", "0", "--seed", "1"]
    process = _start("generate", *pair, "--prompt", "Once upon a time", *long)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == b""


def test_ctrl_c_stops_an_answer_of_a_chat_and_the_chat_goes_on(pair_folders, monkeypatch, capsys):
    engine = Engine.load(target=pair_folders[0], device="cpu")
    typed = iter(["Once upon a time", "more"])

    def type_line(shown: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", type_line)
    runner = engine.pair.target
    forward, calls = runner.forward, []

    def forward_until_interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    monkeypatch.setattr(runner, "forward", forward_until_interrupted)
    assert chat(engine, Settings(max_new_tokens=20, gamma=0, seed=1, temperature=3)) == 0
    printed = capsys.readouterr()
    assert " (stopped)" in printed.out
    assert printed.err.count("first token after") == 1
    assert engine.admission.active == 0
