"""Which candidate is taken, and when none is."""

import numpy as np
import pandas as pd
import pytest

from ich_lstm.adaptation.comparing.candidates import AS_IS
from ich_lstm.adaptation.comparing.choice import decide


def row(name: str, loss: float, over: tuple[float, float], change: tuple[float, float, float], trains: str = "nothing") -> dict:
    return {
        "candidate": name,
        "about": f"{name} in words",
        "trains": trains,
        "loss": loss,
        "over_best": over[0],
        "over_best_se": over[1],
        "change": change[0],
        "change_low": change[1],
        "change_high": change[2],
    }


def test_the_simplest_within_one_standard_error() -> None:
    table = pd.DataFrame(
        [
            row(AS_IS, 0.30, (0.10, 0.02), (0, 0, 0)),
            row("Platt", 0.21, (0.01, 0.011), (-0.09, -0.12, -0.06)),
            row("head", 0.20, (0.0, 0.0), (-0.10, -0.13, -0.07), "head"),
        ]
    )
    verdict = decide(table, patients=100, positives=30)
    assert (verdict.chosen, verdict.best, verdict.is_adapted, verdict.positives_needed) == ("Platt", "head", True, None)
    assert "No training" in verdict.reason
    table.loc[1, "over_best_se"] = 0.009
    verdict = decide(table, patients=100, positives=30)
    assert verdict.chosen == "head"
    assert "0.2000 instead of 0.3000" in verdict.reason


def test_what_may_be_chance_leaves_the_model_and_says_how_many_more_are_needed() -> None:
    half = 0.03
    table = pd.DataFrame(
        [
            row(AS_IS, 0.30, (0.02, 0.01), (0, 0, 0)),
            row("Platt", 0.28, (0.0, 0.0), (-0.02, -0.02 - half, -0.02 + half)),
        ]
    )
    verdict = decide(table, patients=100, positives=30)
    assert (verdict.chosen, verdict.best, verdict.is_adapted) == (AS_IS, "Platt", False)
    se = half / 1.984
    assert verdict.positives_needed == pytest.approx(30 * ((1.960 + 0.842) * se / 0.02) ** 2, rel=0.02)
    assert f"{verdict.positives_needed:,} positive patients" in verdict.reason


def test_nothing_better() -> None:
    table = pd.DataFrame([row(AS_IS, 0.20, (0.0, 0.0), (0, 0, 0)), row("Platt", 0.21, (0.01, 0.02), (0.01, -0.01, 0.03))])
    verdict = decide(table, patients=100, positives=30)
    assert (verdict.chosen, verdict.is_adapted, verdict.positives_needed) == (AS_IS, False, None)


def test_a_difference_that_only_the_standard_error_hides_is_no_reason() -> None:
    """The model as it is within one standard error of the best: it stays."""
    table = pd.DataFrame([row(AS_IS, 0.21, (0.01, 0.02), (0, 0, 0)), row("head", 0.20, (0.0, 0.0), (-0.01, -0.05, 0.03), "head")])
    assert not decide(table, patients=50, positives=np.int64(20)).is_adapted
