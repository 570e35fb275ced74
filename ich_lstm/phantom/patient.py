"""One synthetic patient: head, hemorrhage, injuries and old findings, independent of the scan that is made."""

from dataclasses import dataclass, replace

from ich_lstm.phantom.anatomy.head import Head, draw_head
from ich_lstm.phantom.draws import stream
from ich_lstm.phantom.lesions.bleeding import draw_lesions
from ich_lstm.phantom.lesions.injuries import Injury, draw_injuries
from ich_lstm.phantom.lesions.intraaxial import VentricleBlood
from ich_lstm.phantom.lesions.lesion import Lesion, Push
from ich_lstm.phantom.lesions.mimics import Mimic, draw_mimics
from ich_lstm.phantom.settings import PhantomSettings

HYDROCEPHALUS = 1.25
"""Factor by which blood in the ventricles, which dams up the CSF, widens them."""


@dataclass(frozen=True, eq=False)
class Patient:
    """Head, lesions and other findings of one synthetic patient.

    Args:
        head: Size and shape of the head.
        lesions: Hemorrhages in the order in which they are painted: from the center outwards.
        injuries: Injuries of skull and scalp.
        mimics: Findings in the brain that are not hemorrhage.
    """

    head: Head
    lesions: tuple[Lesion, ...] = ()
    injuries: tuple[Injury, ...] = ()
    mimics: tuple[Mimic, ...] = ()

    @property
    def pushes(self) -> tuple[Push, ...]:
        """The mass effects of all lesions."""
        return tuple(lesion.push for lesion in self.lesions if lesion.push)


def draw_patient(settings: PhantomSettings, patient: int) -> Patient:
    """Draw one patient: a pure function of the settings and the patient's number."""
    seed, difficulty = settings.seed, settings.difficulty
    head = draw_head(stream(seed, patient, "head"))
    lesions = draw_lesions(stream(seed, patient, "blood"), head, settings.prevalence, difficulty)
    if any(isinstance(lesion, VentricleBlood) for lesion in lesions):
        head = replace(head, ventricle=head.ventricle * HYDROCEPHALUS)
    injuries = draw_injuries(stream(seed, patient, "injuries"), head, lesions, difficulty)
    return Patient(head, lesions, injuries, draw_mimics(stream(seed, patient, "mimics"), head, difficulty))
