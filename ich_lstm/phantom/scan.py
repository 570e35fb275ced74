"""The scan of a synthetic patient: anatomy, blood and scanner combined, with the truth about every slice."""

from dataclasses import dataclass, field

import numpy as np

from ich_lstm.labels import HEMORRHAGE_TYPES, complete_labels
from ich_lstm.phantom import identifiers
from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.draws import stream
from ich_lstm.phantom.lesions.findings import findings_of
from ich_lstm.phantom.lesions.lesion import Lesion
from ich_lstm.phantom.painter import Painter
from ich_lstm.phantom.patient import draw_patient
from ich_lstm.phantom.scanner.acquisition import Acquisition, draw_acquisition
from ich_lstm.phantom.scanner.artefacts import draw_artefacts
from ich_lstm.phantom.scanner.exposure import Scanner
from ich_lstm.phantom.scanner.reconstruction import PLAIN, Reconstruction
from ich_lstm.phantom.scanner.storage import Storage, draw_storage
from ich_lstm.phantom.settings import PhantomSettings
from ich_lstm.scan import HU_MAX

VISIBLE_HU_MM2 = 1000.0
"""Contrast times area from which a type is labelled as present in a slice, partial volume included: for instance 40 mm² at
25 HU, or a clot 6 mm wide at 35 HU. Less is lost in the noise of the image. Contrast is the absolute difference from the
image without the blood, so chronic blood counts where it is darker than brain."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PhantomScan:
    """A synthetic scan with its truth; slices ordered inferior to superior, in the radiological display convention.

    Args:
        hu: Hounsfield units, int16 ``(n, h, w)``, as a reader of the files should get them.
        slice_labels: uint8 ``(n, k)`` in the order of `LABELS`: the types that are visible in the slice.
        visible: Contrast times area per slice and type in HU mm², float32 ``(n, 5)``; a threshold on it gives the labels.
        masks: Where each type covers at least half of a pixel, bool ``(5, n, h, w)``.
        brain: The inside of the skull, bool ``(n, h, w)``.
        ventricles: The ventricles, blood in them included, bool ``(n, h, w)``.
        acquisition: Geometry of the scan.
        reconstruction: How the acquisition was reconstructed.
        lesions: The hemorrhages with type, side and blood; some may be too small to be visible.
        findings: Further findings that a report would state (`findings_of`).
        storage: How the HU are stored in DICOM.
        sop_uids: One identifier per slice.
        series_uid: Identifier of the series.
        study_uid: Identifier of the study.
        patient_id: Identifier of the patient.
    """

    hu: Array = field(repr=False)
    slice_labels: Array = field(repr=False)
    visible: Array = field(repr=False)
    masks: Array = field(repr=False)
    brain: Array = field(repr=False)
    ventricles: Array = field(repr=False)
    acquisition: Acquisition = field(repr=False)
    reconstruction: Reconstruction
    lesions: tuple[Lesion, ...] = field(repr=False)
    findings: frozenset[str]
    storage: Storage
    sop_uids: tuple[str, ...] = field(repr=False)
    series_uid: str
    study_uid: str
    patient_id: str

    @property
    def positions_mm(self) -> Array:
        """Position of each slice along the slice normal, float64 ``(n,)``."""
        return np.array([self.acquisition.image_position(i) @ self.acquisition.normal for i in range(len(self.hu))])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of slices, rows and columns in mm."""
        return self.acquisition.spacing_mm, self.acquisition.pixel_mm, self.acquisition.pixel_mm

    @property
    def tilt_degrees(self) -> float:
        """Angle between the slice normal and the table."""
        return self.acquisition.tilt_degrees


def make_head(settings: PhantomSettings, patient: int, *, reconstruction: Reconstruction = PLAIN) -> PhantomScan:
    """Make one patient's scan: a pure function of the settings, the patient's number and the reconstruction.

    Args:
        settings: Settings of the data set to which the patient belongs; ``settings.patients`` is ignored.
        patient: Number of the patient, from 0.
        reconstruction: Slice thickness, kernel and contrast; the head and its hemorrhages do not depend on it.

    Example:
        >>> make_head(PhantomSettings(slices=8, size=48), 0).slice_labels.shape
        (8, 6)
    """
    seed, code = settings.seed, reconstruction.code
    person = draw_patient(settings, patient)
    acquired = draw_acquisition(stream(seed, patient, "scanner"), stream(seed, patient, "aside"), settings, person.head)
    acquisition = acquired.reconstruct(reconstruction)
    storage = draw_storage(stream(seed, patient, "storage"))
    spoilers = (stream(seed, patient, "hardening"), stream(seed, patient, "motion"), stream(seed, patient, "metal"))
    artefacts = draw_artefacts(spoilers, acquired.height_mm, settings.difficulty)
    painter = Painter(person, acquisition, acquired.height_mm, reconstruction.contrast, stream(seed, patient, "texture"))
    scanner = Scanner(acquisition, artefacts, stream(seed, patient, "noise", code), stream(seed, patient, "streaks", code))
    background, outside = acquisition.background(), acquisition.outside_circle()

    shape = (acquisition.slices, settings.size, settings.size)
    hu = np.empty(shape, np.int16)
    visible = np.zeros((shape[0], len(HEMORRHAGE_TYPES)), np.float32)
    masks = np.zeros((len(HEMORRHAGE_TYPES), *shape), bool)
    brain, ventricles = np.zeros(shape, bool), np.zeros(shape, bool)
    box = acquisition.head_box(person.head)
    for i in range(acquisition.slices):
        layer = painter.paint(i)
        picture = background.copy()
        # The maximum keeps the head holder where the box around the head is empty.
        picture[box] = np.maximum(picture[box], layer.hu)
        picture = scanner.expose(i, picture)
        if acquisition.padded:
            picture[outside] = storage.floor_hu
        hu[i] = np.clip(np.rint(picture), storage.floor_hu, HU_MAX)
        visible[i] = layer.contrast * acquisition.pixel_mm**2
        masks[:, i, box[0], box[1]] = layer.blood >= 0.5
        brain[i][box] = layer.brain >= 0.5
        ventricles[i][box] = layer.ventricles >= 0.5
    types = visible >= VISIBLE_HU_MM2
    return PhantomScan(
        hu=hu,
        slice_labels=complete_labels(np.pad(types.astype(np.float32), ((0, 0), (0, 1)), constant_values=np.nan)).astype(np.uint8),
        visible=visible,
        masks=masks,
        brain=brain,
        ventricles=ventricles,
        acquisition=acquisition,
        reconstruction=reconstruction,
        lesions=person.lesions,
        findings=findings_of(person, acquired, artefacts),
        storage=storage,
        sop_uids=tuple(identifiers.slice_identifier(seed, patient, i, code) for i in range(shape[0])),
        series_uid=identifiers.series_identifier(seed, patient, code),
        study_uid=identifiers.study_identifier(seed, patient),
        patient_id=identifiers.patient_identifier(seed, patient),
    )
