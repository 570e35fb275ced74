"""ich-adapt as a command: its files, its exit codes, a stopped run, and the check of the months after."""

import json
from pathlib import Path

import pandas as pd
import pydicom
import pytest
import torch
from fabricated import make_classifier

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.cli import adapt
from ich_lstm.phantom import PhantomSettings, write_phantom

pytestmark = pytest.mark.usefixtures("one_core")

QUICK = ["--folds=2", "--repeats=1", "--epochs=30", "--replicates=100", "--head-lr=0.02", "--device=cpu"]


def heads(folder: Path, seed: int, patients: int = 24, **settings) -> Path:
    return write_phantom(
        PhantomSettings(patients=patients, slices=8, size=64, seed=seed, prevalence=0.5, **settings), folder, workers=1
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heads(tmp_path_factory.mktemp("site"), 11)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that calls everything positive."""
    classifier = make_classifier(seed=3)
    with torch.no_grad():
        classifier.model.gate.zero_()
        classifier.model.sequence_classifier.bias += 4
    classifier.is_synthetic = True
    folder = tmp_path_factory.mktemp("canary-model")
    classifier.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ich_lstm.adaptation.comparing.candidates.FEWEST_STEPS", 1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"prepared", "features"} & set(path.parts)
    }


def command(model: Path, site: Path, out: Path, *further: str) -> list[str]:
    data = [f"--data.root={site}", f"--data.labels={site / 'stage_2_train.csv'}"]
    return [f"--checkpoint={model}", *data, f"--out={out}", *QUICK, *further]


@pytest.fixture
def any_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of these tests ranks nothing, so every label would be doubtful."""
    monkeypatch.setattr("ich_lstm.adaptation.adapt._check_noise", lambda *given: None)


@pytest.mark.usefixtures("any_labels")
def test_a_site_of_its_own(model: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "adapted"
    assert adapt.main(command(model, site, out)) == 0
    said = capsys.readouterr().out
    assert "24 scans, 192 slices: each is encoded once" in said
    assert "Adapted. " in said

    record = json.loads((out / "adaptation.json").read_text())
    assert record["is_adapted"]
    assert record["counts"] == {"patients": 24, "positive_patients": 10, "scans": 24, "slices": 192}
    page = (out / "adaptation.html").read_text()
    for words in ("Before and after", "What was tried", "sensitivity=0.95", "Are the reports right?", "synthetic heads"):
        assert words in page
    assert "adapt, " in (out / "MODEL_CARD.md").read_text()  # the fit that adapted it
    adapted = ScanClassifier.load(out / "model")
    assert adapted.weights_hash() == record["weights"]
    assert adapted.calibration is not None
    prediction = next(iter(adapted.predict(site)))
    assert prediction.calibrated is not None
    assert prediction.operating_point.name == "sensitivity=0.95"

    doubtful = pd.read_csv(out / "private/doubtful.csv", dtype=str)
    assert doubtful.columns[0] == "series_uid"
    for path in out.rglob("*"):
        if path.is_file() and "private" not in path.parts:
            assert b"ID_" not in path.read_bytes(), path
            assert str(tmp_path).encode() not in path.read_bytes(), path

    before = files_of(out)
    again = tmp_path / "again"
    (again / "private").mkdir(parents=True)  # as a stopped run leaves it: scans and features are there, nothing else
    for name in ("prepared", "features"):
        (out / "private" / name).rename(again / "private" / name)
    assert adapt.main(command(model, site, again, "--data.num_workers=0")) == 0
    assert files_of(again) == before

    assert adapt.main(command(model, site, out)) == 2
    assert "out_not_empty" in capsys.readouterr().err

    month = heads(tmp_path / "month", 12, patients=30)
    assert adapt.main([f"--check={out}", f"--data.root={month}", "--device=cpu"]) == 0
    assert "nothing has moved" in capsys.readouterr().out
    noisy = heads(tmp_path / "noisy", 13, patients=30, noise=5.0)
    assert adapt.main([f"--check={out}", f"--data.root={noisy}", "--device=cpu", f"--out={tmp_path / 'check'}"]) == 3
    assert "spread of HU" in capsys.readouterr().out
    assert json.loads((tmp_path / "check/check.json").read_text())["moved"]


@pytest.mark.usefixtures("any_labels")
def test_a_model_that_cannot_be_bettered_stays(
    model: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ich_lstm.adaptation.adapt.decide", _never)
    out = tmp_path / "adapted"
    assert adapt.main(command(model, site, out)) == 3
    assert "The model stays as it is. About 77 positive patients" in capsys.readouterr().out
    assert not (out / "model/calibration.json").exists()
    assert ScanClassifier.load(out / "model").weights_hash() == ScanClassifier.load(model).weights_hash()
    assert "The model stays as it is" in (out / "adaptation.html").read_text()


def _never(table: pd.DataFrame, **_: int):
    from ich_lstm.adaptation.comparing.choice import Verdict

    return Verdict("as it is", "head", False, "About 77 positive patients would show it.", 77)


def test_noisy_reports_are_refused_with_a_list_that_can_be_given_back(
    model: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ich_lstm.adaptation import adapt as home

    real = home.estimate_all
    monkeypatch.setattr(home, "estimate_all", lambda *given: [each._replace(wrong=0.3) for each in real(*given)])
    out = tmp_path / "adapted"
    assert adapt.main(command(model, site, out)) == 1
    error = capsys.readouterr().err
    assert "noisy_labels" in error
    assert "--doubtful of ich-adapt" in error
    table = pd.read_csv(out / "private/doubtful.csv", dtype=str)
    assert len(table)
    table["any"] = "1"
    table.to_csv(tmp_path / "corrections.csv", index=False)
    data = ScanDataModule(
        site, site / "stage_2_train.csv", corrections=tmp_path / "corrections.csv", cache_dir=out / "private/prepared"
    )
    data.prepare_as(ScanClassifier.load(model).known_preprocessing())
    data.prepare_data()
    data.setup()
    labels = {scan.series_uid: scan.scan_labels for scans in data.scans.values() for scan in scans}
    assert all(labels[uid][-1] == 1 for uid in table["series_uid"])
    assert adapt.main(command(model, site, out, "--doubtful=soft")) in (0, 3)  # goes on with what was read and encoded


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--data.root=x"], "--checkpoint"),
            (["--check=a", "--data.root=x", "--folds=3"], "--check takes no folds"),
            (["--checkpoint=a", "--data.root=x", "--data.labels=b", "--out=c", "--operating-point=often"], "unknown_rule"),
            (["--checkpoint=a", "--data.root=x", "--data.labels=b", "--out=c", "--folds=1"], "adaptation_out_of_range"),
            (["--checkpoint=a", "--data.root=x", "--data.labels=b", "--out=c", "--fold=3"], "Did you mean --folds?"),
        ],
    )
    def test_wrong_usage(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert adapt.main([*arguments, "--device=cpu"]) == 2
        assert words in capsys.readouterr().err

    def test_check_needs_an_adaptation_and_enough_scans(
        self, model: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert adapt.main([f"--check={model}", f"--data.root={site}"]) == 1
        assert "not_adapted" in capsys.readouterr().err

    def test_labels_for_half_of_the_scans(
        self, model: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = pd.read_csv(site / "stage_2_train.csv")
        rows[: len(rows) // 2].to_csv(tmp_path / "half.csv", index=False)
        given = [word for word in command(model, site, tmp_path / "out") if not word.startswith("--data.labels")]
        assert adapt.main([*given, f"--data.labels={tmp_path / 'half.csv'}"]) == 1
        error = capsys.readouterr().err
        assert "--unmatched images" in error
        assert not (tmp_path / "out/private/features").exists()

    def test_two_patients_under_one_accession_number(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site = heads(tmp_path / "site", 14, patients=4)
        people: list[str] = []
        for path in sorted(site.rglob("*.dcm")):
            data = pydicom.dcmread(path)
            people = [*people, data.PatientID] if data.PatientID not in people else people
            data.AccessionNumber = f"A{max(1, people.index(data.PatientID))}"  # A1 twice, A2, A3
            data.save_as(path)
        reports = tmp_path / "reports.csv"
        reports.write_text("accession_number,any\nA1,1\nA2,0\nA3,1\n")
        given = [word for word in command(model, site, tmp_path / "out") if not word.startswith("--data.labels")]
        assert adapt.main([*given, f"--data.labels={reports}"]) == 1
        error = capsys.readouterr().err
        assert "several_scans" in error
        assert "reports.csv" in error
        assert not (tmp_path / "out/private/features").exists()


def test_the_commands_of_the_documentation_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs/adapt.md").read_text()
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("ich-adapt ")]
    assert len(commands) == 3
    for words in commands:
        assert adapt._parse(words).root is not None
