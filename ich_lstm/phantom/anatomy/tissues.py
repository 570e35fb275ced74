"""Attenuation of every tissue in Hounsfield units, with its source.

The letters at the constants stand for these sources:

- [H] Hounsfield GN. Computerized transverse axial scanning (tomography). Br J Radiol 1973;46:1016-1022: the scale, air and water.
- [B] Brooks RA, Di Chiro G, Keller MR. Explanation of cerebral white-gray contrast in computed tomography. J Comput Assist
  Tomogr 1980;4:489-491.
- [N] New PFJ, Aronow S. Attenuation measurements of whole blood and blood fractions in computed tomography. Radiology
  1976;121:635-640: whole blood, cells, plasma and clot over the haematocrit.
- [V] Bergström M, et al. Variation with time of the attenuation values of intracranial hematomas. J Comput Assist Tomogr
  1977;1:57-63.
- [S] Scotti G, et al. Evaluation of the age of subdural hematomas by computerized tomography. J Neurosurg 1977;47:311-315.
- [D] Black DF, et al. Cerebral venous sinus density on noncontrast CT correlates with hematocrit. AJNR 2011;32:1354-1357.
- [O] Ranges from textbooks of radiology, for instance Osborn AG, Osborn's Brain.
"""

from typing import Literal, NamedTuple

Age = Literal["hyperacute", "acute", "subacute", "chronic", "diluted"]


class Range(NamedTuple):
    """The lowest and the highest HU reported in the literature."""

    low: float
    high: float


AIR_HU = -1000.0
"""[H]."""

CSF = Range(0.0, 15.0)
WHITE_MATTER = Range(20.0, 30.0)
GREY_MATTER = Range(35.0, 45.0)
"""[B], [O]: white matter is darker, because it has more fat and less water and blood."""

BONE = Range(300.0, 2000.0)
"""[O]: from spongy bone to the petrous bone."""

DURA = Range(45.0, 60.0)
"""[O]: falx and tentorium."""

VENOUS_SINUS = Range(50.0, 70.0)
"""[D]: attenuation grows with the haematocrit."""

CALCIFICATION = Range(80.0, 400.0)
"""[O]: pineal, choroid plexus, basal ganglia, falx."""

ENHANCED_VESSEL = Range(150.0, 250.0)
"""[O]: arteries, sinuses and choroid plexus after an iodinated contrast agent."""

BLOOD: dict[Age, Range] = {
    "hyperacute": Range(35.0, 60.0),
    "acute": Range(55.0, 85.0),
    "subacute": Range(25.0, 40.0),
    "chronic": Range(5.0, 25.0),
    "diluted": Range(40.0, 65.0),
}
"""[N], [V], [S], [O]. Hyperacute (hours): blood as it flows, unclotted; acute (to three days): the clot has retracted and
haemoglobin is dense; subacute (to three weeks): it becomes isodense with brain; chronic: nearly as dark as CSF.
Diluted: acute blood mixed with CSF in the subarachnoid space."""

PLASMA = Range(15.0, 30.0)
"""[N]: the layer above the cells when unclotted blood has settled."""

OEDEMA_HU = 17.0
INFARCT = Range(6.0, 16.0)
"""[O]: an old infarct is CSF with remnants of tissue."""

FAT_HU, SKIN_HU, MUSCLE_HU = -92.0, 25.0, 56.0
"""[O]."""

TABLE_HU, DIPLOE_HU, PETROUS_HU, SPONGY_HU, THIN_BONE_HU = 1650.0, 650.0, 1200.0, 520.0, 900.0
"""Within `BONE`: the tables of the vault, the marrow between them, the petrous pyramid, the clivus, walls of orbit and sinus."""

NUCLEUS_HU, STEM_HU = 39.5, 32.0
"""Deep grey matter; the brainstem, grey and white interwoven."""

VESSEL_HU, PLEXUS_HU = 42.0, 40.0
"""Flowing blood in arteries, lowered by partial volume, and the choroid plexus without contrast agent."""

SWELLING_HU = 48.0
"""Blood and oedema in the scalp."""

METAL_HU = 3071.0
"""Metal exceeds the 12-bit scale and is stored as its largest value."""
