"""Nobody's result stands under another person's name, however identifiers collide."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fabricated import make_classifier
from persons import BRAIN_HU, make_person, persons_in

from ich_lstm.archive import run as archive_run
from ich_lstm.archive import study as study_run
from ich_lstm.archive.run import ArchiveRun, find_studies
from ich_lstm.archive.study import PredictOptions
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepared.file_names import slice_name
from ich_lstm.errors import TableError
from ich_lstm.evaluation.joined import join_predictions
from ich_lstm.inference import predictor as predictor_module
from ich_lstm.inference.forward import EncodedScan, PreparedScan
from ich_lstm.labels import LABELS
from ich_lstm.models.scan_model import ScanLogits
from ich_lstm.preprocessing.crop_and_resize import Box
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import Index, SliceHeader, index_source
from ich_lstm.reading.ledger.header_table import to_files

PERSONS, PER_SHUFFLE, SLICES = 60, 10, 4


@pytest.fixture
def by_pixels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A predictor whose probability of "any" is that of the person in the pixels: person / 100; pages name the persons."""

    def encode(model: object, prepared: PreparedScan, by: object) -> EncodedScan:
        nothing = torch.zeros(0)
        scan = prepared.scan
        return EncodedScan(scan, Box(0, 0, 1, 1), torch.from_numpy(scan.hu.copy()), nothing, nothing)

    def infer(model: object, hu: torch.Tensor, *arguments: object, **options: object) -> ScanLogits:
        middle = hu.shape[1] // 2
        p = (hu[:, middle, middle].float() - BRAIN_HU) / 100
        logits = torch.logit(p.clamp(1e-6, 1 - 1e-6))[:, None].expand(-1, len(LABELS))
        return ScanLogits(logits, logits.max(dim=0).values[None])

    def page(prediction: Any, **options: object) -> str:
        return " ".join(map(str, sorted(persons_in(prediction))))

    monkeypatch.setattr(predictor_module, "encode_scan", encode)
    monkeypatch.setattr(predictor_module, "infer", infer)
    monkeypatch.setattr(study_run, "prediction_page", page)
    monkeypatch.setattr(study_run, "encode_thumbnail", lambda prediction: "")
    return make_classifier().predictor


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> list[list[SliceHeader]]:
    """The slices of 60 persons, each in a folder; of a third a series with a bone kernel too."""
    folder = tmp_path_factory.mktemp("exports")
    headers = []
    for person in range(PERSONS):
        make_person(folder / str(person), person, SLICES)
        if person % 3 == 0:
            uid = f"1.2.9.{person}.2"
            make_person(folder / str(person) / "b", person, SLICES, SeriesInstanceUID=uid, ConvolutionKernel="Hr68")
        headers.append(sorted(index_source(folder / str(person)).headers, key=lambda header: str(header.source)))
    return headers


def shuffled(exports: list[list[SliceHeader]], random: np.random.Generator) -> dict[int, list[SliceHeader]]:
    """Some of the persons, their identifiers drawn so that they collide in many ways.

    Two people of one Patient ID that names somebody have two birth dates: otherwise their headers say that they are one person.
    """

    def draw(pool: tuple[str, ...], own: str, share: float = 0.6) -> str:
        return str(random.choice(pool)) if random.random() < share else own

    drawn = {}
    for person in random.choice(PERSONS, PER_SHUFFLE, replace=False).tolist():
        first = exports[person][0]
        patient = draw(("", "ANON", "0", "P1", "p1", "P2"), first.patient_id)
        of_study = {
            "patient_id": patient,
            "study_uid": draw(("", "1.2.3", "1.2.4"), first.study_uid, 0.7),
            "accession_number": draw(("", "A1", "A2"), first.accession_number),
            "study_date": draw(("", "2024-01-01", "2024-01-02"), first.study_date),
            "issuer": draw(("", "N"), "", 0.3),
            "name_digest": draw(("", "ab", "cd"), first.name_digest),
            "sex": draw(("", "M", "F"), "", 0.3),
            "birth_digest": f"19{person + 10}-01-01" if patient in ("P1", "p1", "P2") else draw(("", "1950-01-01"), ""),
        }
        shares_series, shares_slices = random.random(2) < 0.5
        mine = []
        for i, header in enumerate(exports[person]):
            uids = {"series_uid": f"1.2.5.{header.series_uid[-1]}"} if shares_series else {}
            uids |= {"sop_uid": f"1.2.6.{i}"} if shares_slices else {}
            strange = {}
            if random.random() < 0.02:  # an anonymizer that missed a file
                strange = {"patient_id": str(random.choice(["", "P2"])), "accession_number": str(random.choice(["", "A2"]))}
            mine.append(replace(header, **{**of_study, **uids, **strange}))
        drawn[person] = mine
    return drawn


@pytest.fixture
def run(by_pixels: Any, project_key: ProjectKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Predict sources whose headers are given; returns the folder of predictions."""
    runs = count()

    def _run(sources: Sequence[Sequence[SliceHeader]]) -> Path:
        given = {}
        for number, headers in enumerate(sources):
            given[Path(f"source-{number}")] = Index(to_files(headers))
        monkeypatch.setattr(archive_run, "index_source", lambda path, **options: given[path])
        out = tmp_path / f"out-{next(runs)}"
        options = PredictOptions(heat_maps="none")
        archive = ArchiveRun(by_pixels, find_studies(list(given), out=out), out, key=project_key, options=options, identify=True)
        for number in range(len(archive)):
            archive.predict(number)
        archive.finish()
        return out

    return _run


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()


def check(out: Path, drawn: dict[int, list[SliceHeader]]) -> Counter[str]:
    """See that what stands beside each result is of the person in its pixels; returns what became of the studies."""
    by_file = {slice_name(header, Path("source")): (person, header) for person, mine in drawn.items() for header in mine}
    worklist, key, slices = (read(out / name) for name in ("private/worklist.csv", "private/key.csv", "slices.csv"))
    assert worklist["scan_id"].is_unique
    assert worklist["study_id"].is_unique
    predicted = worklist[worklist["status"] == "ok"]
    has_result = set()
    for row in predicted.to_dict("records"):
        keys = key[key["scan_id"] == row["scan_id"]]
        assert len(keys) == SLICES
        (person,) = {by_file[name][0] for name in keys["file"]}
        has_result.add(person)
        said = slices[slices["scan_id"] == row["scan_id"]]["any"].astype(float) * 100
        np.testing.assert_allclose([*said, float(row["any"]) * 100], max(person, 1e-4), atol=0.01)
        assert (out / f"private/pages/{row['scan_id']}.html").read_text() == str(person)
        for header in (by_file[name][1] for name in keys["file"]):
            assert header.patient_id == row["patient_id"]
            assert header.study_uid == row["study_uid"]
            assert header.accession_number in ("", row["accession_number"])
            assert header.study_date in ("", row["study_date"])
        for name in ("patient_id", "study_uid", "accession_number", "study_date"):
            assert set(keys[name]) == {row[name]}
    for row in worklist[worklist["status"] != "ok"].to_dict("records"):
        assert row["any"] == ""
    ledger = read(out / "private/ledger.csv")
    assert len(ledger) == len(by_file)
    assert Counter(ledger["action"])["used"] == SLICES * len(predicted)
    # Another patient's series is no series of the study that is passed over.
    by_path = {str(header.source): person for person, mine in drawn.items() for header in mine}
    assert {by_path[path] for path in ledger["path"][ledger["code"] == "not_chosen"]} <= has_result
    return Counter(worklist["status"])


@pytest.mark.parametrize("shuffles", [14, pytest.param(100, marks=pytest.mark.slow)])
def test_shuffles_of_identities(shuffles: int, exports: list[list[SliceHeader]], run: Callable[..., Path]) -> None:
    """Some of 60 made studies each time; half of them below another path."""
    random = np.random.default_rng(20)
    found: Counter[str] = Counter()
    shared = 0
    for _ in range(shuffles):
        drawn = shuffled(exports, random)
        persons = list(drawn)
        halves = persons[: PER_SHUFFLE // 2], persons[PER_SHUFFLE // 2 :]
        out = run([[header for person in half for header in drawn[person]] for half in halves])
        found += check(out, drawn)
        shared += PER_SHUFFLE - len({mine[0].study_uid for mine in drawn.values()})
    # The shuffles mean something: identifiers did collide, most results are there, and some were refused for it.
    assert shared > 3 * shuffles
    assert found["ok"] > 0.5 * shuffles * PER_SHUFFLE
    assert min(found["mixed_patients"], found["mixed_examinations"]) > 0


def test_sixty_sound_studies_have_sixty_results(exports: list[list[SliceHeader]], run: Callable[..., Path]) -> None:
    drawn = dict(enumerate(exports))
    assert check(run([[header for mine in exports for header in mine]]), drawn) == {"ok": PERSONS}


@pytest.mark.parametrize("kind", ["accession_number", "study_uid", "series_uid"])
@pytest.mark.parametrize("is_refused", [False, True], ids=["both-predicted", "one-refused"])
def test_labels_by_a_name_of_two_patients_stop_the_evaluation(
    kind: str,
    is_refused: bool,
    exports: list[list[SliceHeader]],
    run: Callable[..., Path],
    project_key: ProjectKey,
    tmp_path: Path,
) -> None:
    mine, other = exports[1], exports[2]
    changes: dict[str, Any] = {kind: getattr(mine[0], kind)} | ({"kernel": "Hr68"} if is_refused else {})
    out = run([[*mine, *(replace(header, **changes) for header in other)]])
    (tmp_path / "labels.csv").write_text(f"{kind},any\n{getattr(mine[0], kind)},1\n")
    with pytest.raises(TableError) as error:
        join_predictions(out, read_label_table(tmp_path / "labels.csv"), project_key=project_key, unmatched="images")
    assert error.value.code == "several_scans"
