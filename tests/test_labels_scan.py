"""The two lowest floors: the order of labels, and what a Scan promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import make_scan

from ich_lstm import HEMORRHAGE_TYPES, LABELS
from ich_lstm.labels import ANY, LABEL_SET, LABEL_WEIGHTS, UNIONS, unions_of
from ich_lstm.scan import Note
from ich_lstm.window import BONE, BRAIN, Window


def test_labels_stand_in_rsna_s_order_and_any_counts_twice() -> None:
    assert LABELS == ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
    assert LABELS[:5] == HEMORRHAGE_TYPES
    assert dict(zip(LABELS, LABEL_WEIGHTS, strict=True)) == dict.fromkeys(HEMORRHAGE_TYPES, 1.0) | {"any": 2.0}


class TestScan:
    def test_arrays_cannot_be_written(self) -> None:
        scan = make_scan()
        with pytest.raises(ValueError, match="read-only"):
            scan.hu[0, 0, 0] = 0
        with pytest.raises(ValueError, match="read-only"):
            scan.positions_mm[0] = 0
        with pytest.raises(AttributeError):
            scan.patient_id = "other"  # type: ignore[misc]

    def test_length_is_the_number_of_slices(self) -> None:
        assert len(make_scan(np.zeros((7, 8, 8), np.int16))) == 7

    def test_equal_positions_and_one_slice_are_allowed(self) -> None:
        assert len(make_scan(positions_mm=np.zeros(4))) == 4
        assert len(make_scan(np.zeros((1, 8, 8), np.int16))) == 1

    def test_repr_is_short(self) -> None:
        assert len(repr(make_scan())) < 500

    @pytest.mark.parametrize(
        "changes",
        [
            {"hu": np.zeros((4, 8, 8), np.float32)},
            {"hu": np.zeros((8, 8), np.int16)},
            {"hu": np.zeros((0, 8, 8), np.int16)},
            {"hu": np.full((4, 8, 8), -1025, np.int16)},
            {"hu": np.full((4, 8, 8), 3072, np.int16)},
            {"positions_mm": np.array([0.0, 5.0, 4.0, 15.0])},
            {"positions_mm": np.array([0.0, 5.0, 10.0])},
            {"positions_mm": np.array([0.0, 5.0, np.nan, 15.0])},
            {"positions_mm": np.zeros((4, 2))},
            {"sop_uids": ("1", "2", "3")},
        ],
        ids=lambda changes: "-".join(changes),
    )
    def test_refuses_what_breaks_its_promise(self, changes: dict) -> None:
        with pytest.raises(ValueError, match="Scan"):
            make_scan(**changes)

    def test_range_ends_belong_to_it(self) -> None:
        hu = np.zeros((2, 4, 4), np.int16)
        hu[0], hu[1] = -1024, 3071
        assert make_scan(hu).hu.max() == 3071


def test_note_reads_as_code_and_detail() -> None:
    assert str(Note("tilt", "18.5 degrees")) == "tilt: 18.5 degrees"
    assert str(Note("tilt", "")) == "tilt"


class TestScanPlot:
    @pytest.mark.parametrize(("slices", "most", "shown"), [(1, 12, [1]), (5, 12, [1, 2, 3, 4, 5]), (30, 4, [1, 11, 20, 30])])
    def test_evenly_spaced_slices_from_end_to_end(self, slices: int, most: int, shown: list[int]) -> None:
        scan = make_scan(np.arange(slices, dtype=np.int16)[:, None, None] + np.zeros((slices, 8, 8), np.int16))
        pictures = [axes for axes in scan.plot(most=most).axes if axes.images]
        assert [int(axes.get_title(loc="left").split(":")[0]) for axes in pictures] == shown
        assert [int(axes.images[0].get_array()[0, 0]) + 1 for axes in pictures] == shown
        assert all(axes.images[0].get_clim() == (0, 80) for axes in pictures)

    def test_another_window(self) -> None:
        assert make_scan().plot(window=BONE).axes[0].images[0].get_clim() == (-800, 2000)

    def test_sides_are_marked_as_the_header_says(self) -> None:
        texts = [text.get_text() for text in make_scan(flags=(Note("no_orientation", ""),)).plot().axes[0].texts]
        assert texts == ["R?", "L?"]

    def test_a_dollar_in_a_description_is_a_dollar(self) -> None:
        assert make_scan(description="$_{").plot()._repr_png_().startswith(b"\x89PNG")

    def test_none_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            make_scan().plot(most=0)


class TestWindow:
    @pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
    def test_arrays_of_any_kind(self, dtype: type) -> None:
        hu = np.array([[-1024, 0, 20], [40, 80, 3071]], dtype)
        applied = BRAIN(hu)
        np.testing.assert_array_equal(applied, [[0, 0, 0.25], [0.5, 1, 1]])
        assert applied.dtype.kind == "f"

    @pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
    def test_tensors_of_any_kind(self, dtype: torch.dtype) -> None:
        applied = BRAIN.apply(torch.tensor([-1024, 0, 20, 40, 80, 3071], dtype=dtype))
        assert applied.is_floating_point()
        assert applied.tolist() == [0, 0, 0.25, 0.5, 1, 1]

    def test_a_tensor_keeps_its_gradient(self) -> None:
        hu = torch.tensor([40.0, 500.0], requires_grad=True)
        BRAIN(hu).sum().backward()
        assert hu.grad.tolist() == pytest.approx([1 / 80, 0])

    def test_numbers(self) -> None:
        assert (BRAIN(40), BRAIN(-5.0), BRAIN(np.float64(100)), BRAIN(np.int16(20))) == (0.5, 0, 1, 0.25)

    @pytest.mark.parametrize("hu", [[0, 40], "40", None, make_scan()])
    def test_what_is_no_hu_is_refused(self, hu: object) -> None:
        with pytest.raises(TypeError, match=r"expected HU .* such as scan\.hu"):
            BRAIN(hu)

    @pytest.mark.parametrize("width", [0, -80, float("nan")])
    def test_a_window_without_width_is_refused(self, width: float) -> None:
        with pytest.raises(ValueError, match="width"):
            Window(40, width)(np.zeros(3))


class TestLabelSet:
    def test_any_is_the_union_of_the_types_and_the_only_one(self) -> None:
        assert {LABELS.index(ANY): tuple(LABELS.index(name) for name in HEMORRHAGE_TYPES)} == UNIONS

    @pytest.mark.parametrize(
        ("types", "follows"),
        [
            ([0, 0, 0, 0, 0], 0),
            ([0, 1, 0, 0, 0], 1),
            ([np.nan, 1, np.nan, np.nan, np.nan], 1),
            ([0, 0, np.nan, 0, 0], np.nan),
            ([np.nan] * 5, np.nan),
        ],
    )
    @pytest.mark.parametrize("given", [0, 1, np.nan])
    def test_what_follows_from_the_types_does_not_depend_on_what_is_given(
        self, types: list[float], follows: float, given: float
    ) -> None:
        said = unions_of(np.array([[*types, given]]))
        np.testing.assert_array_equal(said, [[*[np.nan] * 5, follows]])

    def test_each_label_can_be_told_by_name_and_by_line(self) -> None:
        for values in ("name", "title", "short", "color", "heat_color", "finding"):
            assert len({getattr(label, values) for label in LABEL_SET}) == len(LABELS), values
        assert len({(label.color, label.dashes) for label in LABEL_SET}) == len(LABELS)

    def test_a_further_type_is_added_in_the_table_alone(self, tmp_path: Path) -> None:
        script = Path(__file__).with_name("sixth_type.py")
        done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == ("a sixth type\n", 0), done.stderr
