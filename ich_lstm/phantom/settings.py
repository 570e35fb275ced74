"""Settings of a set of synthetic heads."""

from dataclasses import dataclass
from typing import Any

from ich_lstm.errors import ConfigError

MIN_SLICES, MAX_SLICES = 8, 120
"""Fewer slices do not make a head; more do not fit the block of identifiers that each patient owns."""

MIN_SIZE, MAX_SIZE = 48, 1024
"""Below 48 pixels the skull is thinner than a pixel."""

MAX_PATIENTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """A set of synthetic heads; the same settings give the same bytes, anywhere.

    Args:
        patients: Number of patients, each with one scan.
        slices: Slices per scan; None draws 20 to 45 for each patient, about 5 mm apart.
        size: Rows and columns of an image. Runtime grows with its square.
        seed: Everything is a pure function of the seed and the patient's number.
        prevalence: Share of the scans that hold a hemorrhage; RSNA's training set has 0.41.
        noise: Factor on the image noise; 1 is a standard deviation of 3 to 5 HU, 0 none.
        difficulty: How often what is hard to read occurs, 0 to 1: blood that is not acute, old infarcts, operated heads,
            motion, metal, beam hardening, heads off the centre. At 0 there is none of it.
        masks: Whether the writers keep the mask of each type beside the images.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> PhantomSettings(patients=3, size=64).slices is None
        True
    """

    patients: int = 100
    slices: int | None = None
    size: int = 256
    seed: int = 1
    prevalence: float = 0.41
    noise: float = 1.0
    difficulty: float = 0.0
    masks: bool = False

    def __post_init__(self) -> None:
        _check_whole("patients", self.patients, 1, MAX_PATIENTS)
        if self.slices is not None:
            _check_whole("slices", self.slices, MIN_SLICES, MAX_SLICES)
        _check_whole("size", self.size, MIN_SIZE, MAX_SIZE)
        _check_whole("seed", self.seed, 0, 2**63 - 1)
        _check_number("prevalence", self.prevalence, 0.0, 1.0)
        _check_number("noise", self.noise, 0.0, 10.0)
        _check_number("difficulty", self.difficulty, 0.0, 1.0)
        if not isinstance(self.masks, bool):
            raise _out_of_range("masks", self.masks, "true or false")


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _out_of_range(name, value, f"a whole number from {low} to {high}")


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    # A comparison with NaN is false, so NaN is refused with the rest.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _out_of_range(name, value, f"a number from {low:g} to {high:g}")


def _out_of_range(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(
        "phantom_setting_out_of_range",
        where=f"phantom setting {name}",
        got=repr(value),
        expected=expected,
        todo=f"Choose another value for {name}.",
    )
