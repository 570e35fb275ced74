"""The worklist."""

import pytest

from ich_lstm.archive.folder.study_record import StudyRecord
from ich_lstm.archive.folder.worklist import Listed, by_urgency, index_rows, worklist_frame
from ich_lstm.labels import LABELS


def listed(number: int, any_probability: float | None, called: str | None = None, **record) -> Listed:
    status = "ok" if any_probability is not None else "no_series"
    identity = {
        "accession_number": f"ACC{number}",
        "study_uid": f"1.2.{number}",
        "patient_id": f"PAT{number}",
        "study_date": f"2024-01-{number + 1:02}",
    }
    probabilities = dict.fromkeys(LABELS, None if any_probability is None else any_probability / 2)
    probabilities["any"] = any_probability
    row = {"scan_id": f"scan{number}", "patient_id": f"hash{number}", **probabilities}
    if called is not None:
        row |= {f"called_{label}": int(label in called.split()) for label in LABELS}
    row |= {"flags": "tilt;gap" if number == 0 else "", "status": status}
    return Listed(StudyRecord(name="secret", study=f"1.2.{number}", identity=identity, status=status, **record), row)


def names(rows: list[Listed]) -> list[str]:
    return [each.row["scan_id"] for each in rows]


def test_flagged_first_then_what_failed_then_the_rest():
    rows = [listed(0, 0.1), listed(1, None), listed(2, 0.9), listed(3, 0.4), listed(4, 0.6), listed(5, None)]
    assert names(by_urgency(rows)) == ["scan2", "scan4", "scan1", "scan5", "scan3", "scan0"]


def test_the_operating_point_flags_and_not_a_half():
    rows = [listed(0, 0.9, ""), listed(1, 0.2, "any"), listed(2, 0.3, "subdural")]
    assert names(by_urgency(rows)) == ["scan2", "scan1", "scan0"]
    assert rows[2].called == ["subdural"]


def test_equals_stay_in_their_order():
    rows = [listed(number, 0.5) for number in range(5)]
    assert names(by_urgency(rows)) == names(rows)


@pytest.mark.parametrize("identify", [False, True])
def test_the_table_names_the_studies_only_where_it_is_asked_to(project_key, identify: bool):
    rows = by_urgency([listed(0, 0.7, key_slices=[4, 5, 3], seconds=1.234, series="the only series"), listed(1, None)])
    frame = worklist_frame(rows, project_key, identify=identify, operating_point="", model_hash="abc")
    text = frame.to_csv()
    assert ("ACC0" in text, "1.2.0" in text, "PAT0" in text) == (identify,) * 3
    assert ("hash0" in text) != identify
    assert "secret" not in text
    first, second = frame.to_dict("records")
    assert (first["rank"], first["flag"], first["key_slices"], first["flags"]) == (1, 1, "4;5;3", "tilt;gap")
    assert first["study_id"] == project_key.hash_id("1.2.0")
    assert (second["flag"], second["any"], second["status"]) == (None, None, "no_series")
    assert list(frame.columns).index("any") == list(frame.columns).index("epidural") + 5


def test_the_index_links_the_pages_of_its_own_folder(project_key):
    files = ["private/pages/scan0.html", "pages/scan0.html"]
    rows = [listed(0, 0.7, files=files), listed(1, None)]
    private, shareable = (index_rows(rows, identify=bool(folder), folder=folder) for folder in ("private", ""))
    assert [row.page for row in private] == [row.page for row in shareable] == ["pages/scan0.html", ""]
    assert private[0].title == "ACC0"
    assert shareable[0].title == "scan0"
    assert shareable[1].probabilities is None
    assert shareable[1].reason
