"""ich-phantom, and what all commands share."""

from pathlib import Path

import pytest

from ich_lstm.cli import phantom, predict, prepare, train

COMMANDS = {"ich-train": train, "ich-prepare": prepare, "ich-predict": predict, "ich-phantom": phantom}


def test_makes_what_it_is_asked_for(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "heads"), "--patients", "2", "--slices", "9", "--size", "64", "--workers", "1"]
    assert phantom.main(arguments) == 0
    assert len(list((tmp_path / "heads/stage_2_train").iterdir())) == 18


def test_out_of_range_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phantom.main(["--out", str(tmp_path / "heads"), "--patients", "0"]) == 2
    assert "patients" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS[name].main(["--help"]) == 0
    assert capsys.readouterr().out.startswith(name)
    assert COMMANDS[name].main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"{name} 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_debug_shows_the_traceback(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config=none"] if name == "ich-train" else ["--nonsense"]
    assert COMMANDS[name].main([*arguments, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ich-prepare", "ich-predict", "ich-phantom"])
def test_the_help_names_every_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help texts are written by hand, so that they are instant and readable; the parsers are the truth."""
    from ich_lstm.cli.console import OptionParser

    seen: list[str] = []

    def remember(self: OptionParser, arguments: list[str]) -> None:
        seen.extend(option for option in self._option_string_actions)
        raise KeyboardInterrupt

    monkeypatch.setattr(OptionParser, "parse", remember)
    COMMANDS[name].main([])
    assert seen
    assert [option for option in seen if option not in COMMANDS[name].HELP] == []
