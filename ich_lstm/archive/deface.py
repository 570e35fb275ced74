"""Defacing of a predicted scan: removes the face and all slices with burned-in text, so that images may leave the hospital."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.inside_skull import without_face
from ich_lstm.scan import HU_MIN

NOTICE = "Cropped to the inside of the skull, so that the face is not shown."
NO_SKULL = "Not shown: this slice has no closed skull, and could show the face."
HAS_TEXT = "Not shown: this image contains text or marks."


class ShownScan(NamedTuple):
    """A prediction whose images may be shown.

    Args:
        prediction: The prediction with the HU that may be shown; all other values are those of the whole scan.
        not_shown: Reason for each slice that is not shown, by index.
        notice: Explanation for the reader why the images are cropped; empty if they are not.
    """

    prediction: ScanPrediction
    not_shown: Mapping[int, str] = MappingProxyType({})
    notice: str = ""


def deface(prediction: ScanPrediction, slices_with_text: Collection[int] = ()) -> ShownScan:
    """Crop each slice of a scan to the inside of the skull.

    Args:
        prediction: Prediction of the whole scan.
        slices_with_text: Indices of slices with burned-in text, which are not shown at all.
    """
    hu, (rows, columns), has_cavity = without_face(prediction.hu, prediction.spacing_mm)
    hu[list(slices_with_text)] = HU_MIN
    not_shown = {int(i): NO_SKULL for i in np.flatnonzero(~has_cavity)} | dict.fromkeys(slices_with_text, HAS_TEXT)
    explanation = prediction.explanation
    if explanation is not None:
        top, left, height, width = explanation.box
        explanation = replace(explanation, box=(top - rows.start, left - columns.start, height, width))
    return ShownScan(replace(prediction, hu=hu, explanation=explanation), not_shown, NOTICE)
