"""ich-phantom, and what all commands share."""

from pathlib import Path

import pytest

from ich_lstm.cli import adapt, phantom, predict, prepare, train

COMMANDS = {
    "ich-train": train,
    "ich-prepare": prepare,
    "ich-predict": predict,
    "ich-adapt": adapt,
    "ich-phantom": phantom,
}


def test_makes_what_it_is_asked_for(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "heads"), "--patients", "2", "--slices", "9", "--size", "64", "--workers", "1"]
    assert phantom.main(arguments) == 0
    assert len(list((tmp_path / "heads/stage_2_train").iterdir())) == 18


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        ([], "stage_2_train.csv"),
        (["--layout", "rsna", "--test-patients", "1", "--repeated-rows", "--truncated-file"], "stage_2_sample_submission.csv"),
        (["--layout", "cq500", "--thin-every", "0", "--archives", "--nested", "--boxes"], "reads.csv"),
        (["--layout", "ct-ich", "--masks"], "hemorrhage_diagnosis_raw_ct.csv"),
        (["--layout", "hospital", "--most-studies", "1", "--slice-rows"], "labels.csv"),
    ],
)
def test_every_layout_can_be_had(arguments: list[str], labels: str, tmp_path: Path) -> None:
    size = ["--patients", "1", "--slices", "8", "--size", "48", "--workers", "1"]
    assert phantom.main(["--out", str(tmp_path / "heads"), *size, *arguments]) == 0
    assert (tmp_path / "heads" / labels).is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--layout", "rsna", "--archives"], "--layout cq500"),
        (["--slice-rows"], "--layout hospital"),
        (["--layout", "cq50"], "cq500"),
    ],
)
def test_an_option_of_another_layout_is_wrong_usage(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert phantom.main(["--out", str(tmp_path / "heads"), *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "heads").exists()


def test_the_options_are_those_of_the_constructors() -> None:
    from dataclasses import fields

    from ich_lstm.phantom import LAYOUTS, PhantomSettings

    in_code_only = {"byte_order_mark", "skills"}
    for kind in (PhantomSettings, *LAYOUTS.values()):
        options = phantom.options_of(kind)
        assert {option.replace("-", "_") for option in options} == {field.name for field in fields(kind)} - in_code_only
        assert all(f"--{option}" in phantom.HELP for option in options)


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


@pytest.mark.parametrize("name", ["ich-prepare", "ich-predict", "ich-adapt", "ich-phantom"])
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
