"""Series whose values cannot be HU are not prepared, and the ledger says why."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series

from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey


@pytest.mark.parametrize(("offset", "intercept"), [(1024, 0), (1024, -2048), (0, -1024)])
def test_22b_a_false_intercept_is_refused_in_preparing(
    offset: int, intercept: int, project_key: ProjectKey, tmp_path: Path
) -> None:
    for number, (name, shift, told) in enumerate((("sound", 1024, -1024), ("false", offset, intercept))):
        hu = make_head(PhantomSettings(patients=2, size=64, seed=number), 0).hu
        make_series(
            tmp_path / "dicom" / name,
            len(hu),
            change=lambda i, hu=hu, shift=shift: {"hu": hu[i], "stored": (hu[i] + shift).astype(np.int16)},  # type: ignore[misc]
            PixelRepresentation=1,
            RescaleIntercept=told,
            StudyInstanceUID=f"1.2.3.{number}",
            SeriesInstanceUID=f"1.2.3.{number}.1",
            PatientID=name,
            PixelSpacing=[3.5, 3.5],
        )
    folder = prepare(tmp_path / "dicom", tmp_path / "out", preprocessing=Preprocessing(size=16), key=project_key, workers=1)
    assert len(folder.scans) == 1
    ledger = (tmp_path / "out" / "private" / "ledger.csv").read_text()
    refused = [line for line in ledger.splitlines() if "refused" in line]
    assert refused
    assert all("not_hu" in line and "false" in line for line in refused)
