"""The options of `specdec ui`."""

import argparse

import pytest

from specdec_ui.command import register


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    return parser


@pytest.mark.parametrize("port", ["0", "-1", "65536", "nan", "80.5", "²", "x"])
def test_a_port_that_is_none_is_refused(parser, capsys, port):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["ui", f"--port={port}"])
    assert ended.value.code == 2
    assert "from 1 to 65535" in capsys.readouterr().err


def test_a_port_is_a_number(parser):
    assert parser.parse_args(["ui", "--port", "7861"]).port == 7861
