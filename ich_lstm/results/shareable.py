"""What may leave the hospital of a predicted scan: its picture without the face, and no slice with text in it."""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ich_lstm.pixels.cavity import without_face
from ich_lstm.scan import HU_MIN, Note
from ich_lstm.views.prediction import ScanPrediction

NOTICE = "Cut to the inside of the skull, so that no face is shown."
OUTSIDE = "Not shown: this slice has no closed skull, and could show the face."
WRITTEN_ON = "Not shown: text or marks are part of this picture."

FREE_TEXT = {"kernel"}
"""Flags whose detail holds words from the files, which people may have typed."""


class ShownScan(NamedTuple):
    """A prediction whose pictures may be shown.

    Args:
        prediction: With HU of what is shown; probabilities and all else are the whole scan's.
        not_shown: Of slices that are not, by index, why.
        notice: For the reader, why the picture is not the whole one; empty if it is.
    """

    prediction: ScanPrediction
    not_shown: dict[int, str]
    notice: str = ""


def shown_inside(prediction: ScanPrediction, written_on: Collection[int] = ()) -> ShownScan:
    """The scan as anybody may see it: each slice ends at the inside of the skull.

    Args:
        prediction: Of the whole scan.
        written_on: Indices of slices with burned-in text, of which nothing is shown.
    """
    hu, (rows, columns), has_cavity = without_face(prediction.hu, prediction.spacing_mm)
    not_shown = {int(i): OUTSIDE for i in np.flatnonzero(~has_cavity)}
    shown = shown_whole(replace(prediction, hu=hu), written_on)
    explanation = prediction.explanation
    if explanation is not None:
        top, left, height, width = explanation.box
        explanation = replace(explanation, box=(top - rows.start, left - columns.start, height, width))
    flags = tuple(Note(note.code, "") if note.code in FREE_TEXT else note for note in prediction.flags)
    shareable = replace(shown.prediction, explanation=explanation, flags=flags)
    return ShownScan(shareable, not_shown | shown.not_shown, NOTICE)


def shown_whole(prediction: ScanPrediction, written_on: Collection[int] = ()) -> ShownScan:
    """The scan as the hospital may see it: without slices that have text in the picture, which could be another patient's name.

    Args:
        prediction: Of the whole scan.
        written_on: Indices of those slices.
    """
    if not written_on:
        return ShownScan(prediction, {})
    hu = prediction.hu.copy()
    hu[list(written_on)] = HU_MIN
    return ShownScan(replace(prediction, hu=hu), dict.fromkeys(written_on, WRITTEN_ON))
