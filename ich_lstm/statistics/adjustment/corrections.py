"""Corrections of probabilities that a prediction applies: recalibration, and a prevalence that differs from training."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.cases import check_probabilities
from ich_lstm.statistics.measures.scores import logit


@dataclass(frozen=True)
class Recalibration:
    """The correction ``sigmoid(intercept + slope * logit(p))``, which preserves the ranking of probabilities.

    Args:
        slope: Factor of the log odds, 1 / temperature.
        intercept: Offset of the log odds, 0 for temperature scaling.

    Example:
        >>> print(Recalibration(slope=0.5).apply(np.array([0.5, 0.9])))
        [0.5  0.75]
    """

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def temperature(self) -> float:
        """The temperature, by which log odds are divided."""
        return 1 / self.slope

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Correct probabilities of any shape; float64 in [0, 1]."""
        return special.expit(self.intercept + self.slope * logit(check_probabilities(probabilities)))


def shift_prevalence(probabilities: np.ndarray, trained: float, site: float) -> np.ndarray:
    """Correct probabilities for a different share of positive cases: multiply the odds by the odds ratio of the two shares.

    Source: Saerens, Latinne & Decaestecker, Neural Comput 2002;14:21-41, equation 2.4. This is correct only if the cases of each
    class look alike in both populations, and if the probabilities were calibrated at the first share.

    Args:
        probabilities: Probabilities of any shape, in [0, 1].
        trained: Share of positive cases at which the probabilities were calibrated, between 0 and 1.
        site: Share of positive cases where the probabilities are used, between 0 and 1.

    Example:
        >>> print(shift_prevalence(np.array([0.41]), trained=0.41, site=0.08))
        [0.08]
    """
    p = check_probabilities(probabilities)
    for name, share in (("trained", trained), ("site", site)):
        check_share(name, share)
    positive, negative = p * site / trained, (1 - p) * (1 - site) / (1 - trained)
    return positive / (positive + negative)


def check_share(name: str, share: float) -> None:
    """Refuse a share that is not between 0 and 1.

    Args:
        name: What the share is, for the error.
        share: The share.

    Raises:
        ConfigError: ``prevalence_out_of_range``.
    """
    if not 0 < share < 1:
        raise ConfigError("prevalence_out_of_range", where=f"share {name}", got=f"{share:g}", expected="between 0 and 1")
