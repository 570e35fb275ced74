"""Defacing of a predicted scan: removes the face and every slice that contains text, so that pictures may leave the hospital."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.inside_skull import without_face
from ich_lstm.scan import HU_MIN

NOTICE = "Cut to the inside of the skull, so that no face is shown."
OUTSIDE = "Not shown: this slice has no closed skull, and could show the face."
WRITTEN_ON = "Not shown: text or marks are part of this picture."


class ShownScan(NamedTuple):
    """A prediction whose pictures may be shown.

    Args:
        prediction: With HU of what is shown; probabilities and all else are the whole scan's.
        not_shown: Of slices that are not, by index, why.
        notice: For the reader, why the picture is not the whole one; empty if it is.
    """

    prediction: ScanPrediction
    not_shown: Mapping[int, str] = MappingProxyType({})
    notice: str = ""


def shown_inside(prediction: ScanPrediction, written_on: Collection[int] = ()) -> ShownScan:
    """The scan as anybody may see it: each slice ends at the inside of the skull.

    Args:
        prediction: Of the whole scan.
        written_on: Indices of slices with burned-in text, of which nothing is shown.
    """
    hu, (rows, columns), has_cavity = without_face(prediction.hu, prediction.spacing_mm)
    hu[list(written_on)] = HU_MIN
    not_shown = {int(i): OUTSIDE for i in np.flatnonzero(~has_cavity)} | dict.fromkeys(written_on, WRITTEN_ON)
    explanation = prediction.explanation
    if explanation is not None:
        top, left, height, width = explanation.box
        explanation = replace(explanation, box=(top - rows.start, left - columns.start, height, width))
    return ShownScan(replace(prediction, hu=hu, explanation=explanation), not_shown, NOTICE)
