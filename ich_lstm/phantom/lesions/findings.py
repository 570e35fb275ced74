"""The findings of a patient as a radiologist's report would state them, in a machine-readable form."""

import numpy as np

from ich_lstm.phantom.lesions.lesion import midline_shift_mm
from ich_lstm.phantom.patient import Patient
from ich_lstm.phantom.scanner.acquisition import Acquisition
from ich_lstm.phantom.scanner.artefacts import Artefacts

SHIFT_MM = 5.0
"""Smallest midline shift in mm that is reported."""

MASS_MM = 3.0
"""Smallest displacement in mm of the brain beside a lesion that is reported as a mass effect."""

OFF_CENTRE_MM = 15.0
OLD = 0.65
"""Smallest atrophy that is reported."""


def findings_of(patient: Patient, acquisition: Acquisition, artefacts: Artefacts) -> frozenset[str]:
    """The findings of a scan.

    Returns:
        Some of ``fracture``, ``scalp_swelling``, ``craniotomy``, ``infarct``, ``calcification``, ``atrophy``,
        ``mass_effect``, ``midline_shift``, ``chronic`` (old blood, also beside fresh), ``fluid_level``, ``motion``,
        ``metal``, ``off_centre``.
    """
    words = {injury.name for injury in patient.injuries} | {mimic.name for mimic in patient.mimics}
    pushes, bloods = patient.pushes, [lesion.blood for lesion in patient.lesions]
    facts = {
        "atrophy": patient.head.atrophy > OLD,
        "mass_effect": any(np.linalg.norm(push.shift) >= MASS_MM for push in pushes),
        "midline_shift": midline_shift_mm(pushes) >= SHIFT_MM,
        "chronic": any(blood.holds_old for blood in bloods),
        "fluid_level": any(blood.pattern == "level" for blood in bloods),
        "motion": artefacts.motion is not None,
        "metal": artefacts.metal is not None,
        "off_centre": acquisition.off_centre_mm > OFF_CENTRE_MM,
    }
    return frozenset(words | {word for word, holds in facts.items() if holds})
