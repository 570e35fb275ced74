"""Every variant of the catalogue: what the public entrance makes of it, and the ledger's sum."""

import runpy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from catalogue import ROWS, VARIANTS
from catalogue.case import Variant, sound_hu
from dicom_files import AXIAL, head, slice_hu
from pydicom.uid import UID

from ich_lstm.errors import IchLstmError
from ich_lstm.reading import choose_series, index_source, load_scan
from ich_lstm.reading.pixels.codec_worker import is_installed
from ich_lstm.scan import Scan


class Outcome(NamedTuple):
    scan: Scan | None
    error: IchLstmError | None
    ledger: pd.DataFrame

    def codes(self, action: str) -> dict[str, int]:
        return dict(self.ledger[self.ledger.action == action].code.value_counts())


def read_like_prediction(folder: Path, variant: Variant) -> Outcome:
    index = index_source(folder / variant.source, must_have_ct=False)
    if variant.meanwhile is not None:
        variant.meanwhile(folder)
    scan, error = None, None
    if not len(index.headers):
        with pytest.raises(IchLstmError) as refusal:
            index_source(folder / variant.source)
        error = refusal.value
    for study in index.studies():
        try:
            scan = load_scan(choose_series(study, ledger=index.ledger).series, training=variant.training, ledger=index.ledger)
        except IchLstmError as refusal:
            error = refusal
    frame = index.ledger.to_frame()
    assert frame.path.is_unique
    assert sum(index.ledger.counts().values()) == len(frame) == len(index.ledger)
    for text in (index.ledger.summary(), *(str(note) for note in (scan.repairs + scan.flags if scan else ()))):
        assert "secret" not in text.lower()
        assert folder.name not in text
    assert "secret" not in str(error).lower()
    return Outcome(scan, error, frame)


def files_of(source: Path) -> int:
    return sum(1 for path in source.rglob("*") if path.is_symlink() or not path.is_dir())


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_row(variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if variant.syntax and not is_installed(variant.syntax):
        pytest.skip(f"no decoder for {UID(variant.syntax).name}")
    expect = variant.expect
    folder = tmp_path / "TheFolder"
    folder.mkdir()
    variant.make(folder)
    files = files_of(folder)
    for name, value in variant.patch.items():
        monkeypatch.setattr(name, value)
    outcome = read_like_prediction(folder, variant)
    if variant.files or not variant.source:
        assert len(outcome.ledger) == (variant.files or files)
    assert outcome.codes("skipped") == expect.skipped
    assert outcome.codes("refused") == expect.refused
    assert expect.detail in str(outcome.error) + " ".join(outcome.ledger.detail)
    if not expect.slices:
        assert outcome.scan is None
        assert outcome.error is not None
        assert outcome.error.code in (expect.code, "no_ct")
        return
    scan = outcome.scan
    assert outcome.error is None
    assert scan is not None
    assert len(scan) == expect.slices
    assert outcome.codes("used") == {"": expect.files_used or expect.slices}
    if expect.repairs is not None:
        assert {note.code for note in scan.repairs} == expect.repairs
    if expect.flags is not None:
        # Most made series are short, 40 mm of a head, and an image of one value shows no head.
        ignored = {"few_slices", "incomplete", "no_skull", "metal"} - expect.flags
        assert {note.code for note in scan.flags} - ignored == expect.flags
    assert expect.flag_detail in " ".join(note.detail for note in scan.flags)
    if expect.same_hu:
        expected = np.stack([sound_hu(i) for i in range(8)])
        corner = expected[:, :3, :3] if variant.row == "29" else None
        if corner is not None:
            corner[:] = -1024
        np.testing.assert_array_equal(scan.hu, expected)


def test_ids_are_unique_and_every_row_has_a_variant() -> None:
    ids = [variant.id for variant in VARIANTS]
    assert len(set(ids)) == len(ids) >= 200
    assert {variant.row for variant in VARIANTS} <= set(ROWS)


def test_the_made_head_is_not_symmetric() -> None:
    image = slice_hu((-96, -96, 0), AXIAL, anatomy=head)
    assert all((image != other).any() for other in (image[::-1], image[:, ::-1], image.T))


def test_the_page_for_readers_is_made_from_this_list() -> None:
    docs = Path(__file__).parents[2] / "docs"
    namespace = runpy.run_path(str(docs / "make_inputs.py"))
    assert (docs / "inputs.md").read_text() == namespace["page"](), "run: python docs/make_inputs.py"
    assert (docs.parent / "README.md").read_text() == namespace["readme"](), "run: python docs/make_inputs.py"
