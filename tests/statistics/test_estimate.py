"""Figures read well, defined or not."""

import math

import pytest

from ich_lstm.statistics import Estimate
from ich_lstm.statistics.estimate import estimate_or


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.5, 0.25, 0.75), "0.500 (0.250 to 0.750)"),
        (Estimate(0.5, note="few"), "0.500"),
        (estimate_or(math.nan, "no case"), "undefined: no case"),
        (estimate_or(0.25, "no case"), "0.250"),
    ],
)
def test_text(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text
