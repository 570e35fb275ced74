"""Progress in a log file, and how much a command says there."""

from pathlib import Path

import pytest
from dicom_files import make_series

from ich_lstm.cli import predict
from ich_lstm.cli.console import console, progress_bar
from ich_lstm.cli.progress import ProgressLines


class Log:
    """Lines, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.progress = ProgressLines(self.lines.append, clock=lambda: self.now)


class TestProgressLines:
    def test_one_line_a_minute_however_much_is_done(self) -> None:
        log = Log()
        for _ in range(36_000):  # an hour, ten a second
            log.now += 0.1
            log.progress.advance("predicting", 1, 72_000)
        assert 58 <= len(log.lines) <= 60

    def test_says_n_of_n_rate_and_time_left(self) -> None:
        log = Log()
        log.progress.advance("predicting", 0, 60)
        log.now = 120
        log.progress.advance("predicting", 12, 60)
        assert log.lines == ["predicting: 12 of 60, 6.0 a minute, 8 min left"]

    @pytest.mark.parametrize(("done", "pace"), [(600_000, "10,000/s"), (120, "2.0/s"), (30, "30.0 a minute")])
    def test_without_a_total_it_says_how_many(self, done: int, pace: str) -> None:
        log = Log()
        log.progress.advance("reading headers", 0)
        log.now = 60
        log.progress.advance("reading headers", done)
        assert log.lines == [f"reading headers: {done:,}, {pace}"]

    def test_a_short_activity_says_nothing(self) -> None:
        log = Log()
        for _ in range(50):
            log.now += 1
            log.progress.advance("reading headers", 100)
        assert log.lines == []

    def test_several_activities_share_the_minute(self) -> None:
        log = Log()
        for _ in range(600):
            log.now += 1
            log.progress.advance("reading", 1)
            log.progress.advance("predicting", 1, 600)
        assert len(log.lines) == 10

    def test_is_what_commands_use_where_there_is_no_terminal(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("ich_lstm.cli.progress.LINE_SECONDS", 0.0)
        with progress_bar(console()) as progress:
            progress("preparing scans", 1, 4)
        assert capsys.readouterr().out.startswith("preparing scans: 1 of 4, ")


@pytest.mark.parametrize("broken", [0, 1])
def test_a_log_of_many_studies_is_short(
    broken: int, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each study without a result, and none for the others; of few studies, all is said."""
    for number in range(5):
        own = {"ContrastBolusAgent": "OMNIPAQUE"} if number < broken else {}
        uid = f"1.2.3.{number}"
        make_series(tmp_path / f"in/{number}", **({"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1"} | own))
    arguments = ["--checkpoint", str(model_folder), "--out"]
    predict.main([str(tmp_path / "in"), *arguments, str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == broken + 1, lines
    predict.main([str(tmp_path / "in/4"), *arguments, str(tmp_path / "one")])
    assert "subdural" in capsys.readouterr().out
