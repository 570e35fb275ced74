"""The series of a CQ500 study, and their names."""

from dataclasses import dataclass

from ich_lstm.phantom.scanner.reconstruction import Kernel, Reconstruction
from ich_lstm.phantom.settings import PhantomSettings

PREFIX, REPEATED = "CT ", "-2"
"""What the export added to a description: the modality in front, and a mark behind a name that was already taken."""

THICK = (("Plain", None), ("55mm Plain", None), ("5mm", 5.0), ("PRE CONTRAST 5MM STD", 5.0), ("Plain 3mm", 3.0), ("2.55mm", 2.55),
         ("BRAIN PLAIN", None))  # fmt: skip
"""Names of the plain thick series, and their thickness in mm; None keeps the thickness of the acquisition."""

THIN = ("PLAIN THIN", "Thin Plain", "PRE CONTRAST THIN", "0.625mm", "Plain THIN")
THIN_ALONE = ("SOFT THIN", "Thin Stnd", "PLAIN THIN")
BONE = ("BONE", "PRE CONTRAST BONE")
CONTRAST = ("POST CONTRAST", "4cc sec 150cc D3D on", "CONTRAST", "CECT", "ORAL IV")

SECOND_THICK_MM = 4.0

NECK_SLICES = 16


@dataclass(frozen=True, kw_only=True)
class SeriesPlan:
    """One series of a study.

    Args:
        name: Name of the series folder.
        thickness_mm: Slice thickness in mm; None keeps the thickness of the acquisition.
        kernel: Reconstruction kernel.
        contrast: Whether a contrast agent was given.
        keeps_thickness: Whether the thickness applies even if the settings fix the number of slices.
        neck_slices: Number of slices of the neck below the head.
        is_localizer: Whether the series is a localizer; then only its name is used.
    """

    name: str
    thickness_mm: float | None = None
    kernel: Kernel = "soft"
    contrast: bool = False
    keeps_thickness: bool = False
    neck_slices: int = 0
    is_localizer: bool = False

    @property
    def description(self) -> str:
        """Series Description: the name without what the export added."""
        return self.name.removeprefix(PREFIX).removesuffix(REPEATED)

    @property
    def is_plain(self) -> bool:
        """Whether it is a series that should be read: soft kernel, no contrast agent, no localizer."""
        return self.kernel == "soft" and not self.contrast and not self.is_localizer

    def reconstruction(self, settings: PhantomSettings) -> Reconstruction:
        """The reconstruction of the series; a number of slices that the settings fix applies to every thick series."""
        thickness = self.thickness_mm if self.keeps_thickness or settings.slices is None else None
        return Reconstruction(thickness_mm=thickness, kernel=self.kernel, contrast=self.contrast)


def plan_series(number: int, thin_every: int, thin_mm: float) -> list[SeriesPlan]:
    """The series of study ``number``, the plain ones first.

    Of a hundred studies, one has only contrast-enhanced series (36, 136, 236, 336; 336 is the one in CQ500), five have only
    thin series (for example 24), five have two thick series (for example 172), and one begins in the neck (for example 345).
    Two thirds have a bone kernel, a quarter has contrast, a fifth has a localizer, and one in ``thin_every`` has a thin series
    beside the thick one.

    Args:
        number: Number of the study, from 0.
        thin_every: One study in this many has a thin series beside the thick one; 0 plans no thin series.
        thin_mm: Slice thickness of thin series in mm.
    """
    prefix = "" if number % 6 == 5 else PREFIX
    if number % 100 == 36:
        return [SeriesPlan(name=f"{prefix}POST CONTRAST", contrast=True)]
    if thin_every and number % 20 == 4:
        alone = THIN_ALONE[number // 20 % len(THIN_ALONE)]
        return [_thin(prefix + alone, thin_mm), _thin(f"{prefix}BONE THIN", thin_mm, "bone")]
    name, thickness = THICK[number % len(THICK)]
    plans = [SeriesPlan(name=prefix + name, thickness_mm=thickness, neck_slices=NECK_SLICES if number % 100 == 45 else 0)]
    if number % 20 == 12:
        plans.append(SeriesPlan(name=prefix + name + REPEATED, thickness_mm=SECOND_THICK_MM, keeps_thickness=True))
    if thin_every and number % thin_every == 0:
        plans.append(_thin(prefix + THIN[number // thin_every % len(THIN)], thin_mm))
    if number % 3 != 2:
        plans.append(SeriesPlan(name=prefix + BONE[number // 3 % len(BONE)], thickness_mm=thickness, kernel="bone"))
    if number % 4 == 1:
        plans.append(SeriesPlan(name=prefix + CONTRAST[number // 4 % len(CONTRAST)], thickness_mm=thickness, contrast=True))
    if number % 5 == 0:
        plans.append(SeriesPlan(name=f"{prefix}Scout", is_localizer=True))
    return plans


def _thin(name: str, thin_mm: float, kernel: Kernel = "soft") -> SeriesPlan:
    return SeriesPlan(name=name, thickness_mm=thin_mm, kernel=kernel, keeps_thickness=True)
