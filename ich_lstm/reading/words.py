"""What series descriptions, kernels and image types say, in the words of many vendors.

All patterns are for the normal form of a text: upper case, single spaces.
"""

import re

_SEPARATORS = re.compile(r"[\s_,;:()\[\]/|\\^]+")

LOCALIZER = re.compile(r"\b(LOCALI[SZ]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM|PILOT)")
REPORT = re.compile(
    r"\b((DOSE|DOSIS|EXAM|PATIENT) ?(REPORT|INFO|SUMMARY|RECORD|PROTOCOL|SHEET)|"
    r"RADIATION|SCREEN ?(SAVE|SHOT|CAPTURE)|REPORT|RESULTS)"
)
_MAP = re.compile(
    r"\b(IODINE|VNC|VIRTUAL NON|BONE ?REMOV\w*|BONELESS|BONE SUBTR\w*|SUBTRACT\w*|MIP|MINIP|VRT?|VOLUME REND\w*|RENDER\w*|3D|"
    r"PERFUSION|CBF|CBV|MTT|TTP|TMAX|COLOU?R)\b"
)
PLAIN_ENERGIES_KEV = range(60, 81)
_KEV = re.compile(r"\b(\d{2,3}) ?KEV\b")
_MIXED = re.compile(r"\b(MIXED|MONO|MONOENERGETIC|MONOCHROMATIC)\b")

PLAIN = re.compile(r"\b(PLAIN|NATIVE?|NCCT|NECT|UNENHANCED|NON|PRE|WITHOUT|SANS|SIN|SENZA|OHNE)\b")
# Not in "with and without contrast" and "w/wo contrast".
_DENIAL = re.compile(
    r"(?<!AND )(?<!W )(?<!WITH )\b(PRE|NON|NO|WITHOUT|W O|WO|SANS|SIN|SENZA|OHNE|BEFORE)[ -]*(IV )?"
    r"(CONTRAST\w*|KONTRAST\w*|CON|ENHANC\w*|INJECT\w*|INYEC\w*|INIE\w*|MDC|KM|CM|CE|IV|C)\b"
)
# "POST" means after contrast, but not in posterior fossa, postoperative or post-traumatic.
_CONTRAST = re.compile(
    r"\b(CONTRAST\w*|KONTRAST\w*|POST(?![ -]?(FOSSA|OP|SURG|TRAUMA))|CECT|CE|C\+|(WITH|W|MIT) (CON|C|KM)|ENHANCED|ANGIO\w*|"
    r"CTA|CTV|VENOGRA\w*|ARTERIAL|VENOUS|DELAY\w*|ORAL|IV|INJECT\w*|KM|\d+ ?CC)(?=\W|$)"
)
_NO_AGENT = frozenset({"", "NONE", "NO", "N", "N A", "NA", "NIL", "0", "WITHOUT", "NO CONTRAST", "NON CONTRAST", "KEIN", "AUCUN"})

_BONE = re.compile(r"\b(BONES?|KNOCHEN|OSS?EU[XS]?|HUESO|OSSO|OSSA|LUNG|EDGE|SHARP|PETROUS|IAC|INNER EAR)\b")
# GE BONE, BONEPLUS, EDGE, LUNG; Philips YA to YE; Canon FC30 to FC39, FC50 to FC52, FC80 on; Siemens from 60 up (H60s, Hr64h).
_BONE_KERNEL = re.compile(r"(BONE|EDGE|ULTRA|LUNG|SHARP|Y[A-E]\b|FC(3\d|5[0-2]|8\d)|[BHJUIQTD][A-Z]{0,2}[6-9]\d)")

_OTHER_PART = re.compile(
    r"\b(NECK|C[- ]?SPINE|CERVICAL|SPINE|CHEST|THORAX|ABD\w*|PELVIS|LUMBAR|SINUS\w*|ORBITS?|FACE|FACIAL|MAXILL\w*|MANDIBLE|"
    r"TEMPORAL BONES?|KNEE|HIP|SHOULDER|WRIST|ANKLE|FOOT|HAND|ELBOW|EXTREMITY|ARM|LEG|HEART)\b"
)
_HEAD = re.compile(r"\b(HEAD\w*|BRAIN|SKULL|CRAN\w*|CEREBR\w*|KOPF|SCH(AE|Ä)DEL|CABEZA|TESTA|HIRN|STROKE)\b")


def normal_form(text: str) -> str:
    """Upper case, with single spaces for separators.

    Example:
        >>> normal_form("Head_Plain(5mm)")
        'HEAD PLAIN 5MM'
    """
    return _SEPARATORS.sub(" ", text.upper()).strip()


def names_contrast(description: str) -> bool:
    """Whether a description says that contrast was given.

    Example:
        >>> [names_contrast(text) for text in ("POST CONTRAST", "PRE CONTRAST 5MM", "4cc sec 150cc", "Post fossa")]
        [True, False, True, False]
    """
    return bool(_CONTRAST.search(_DENIAL.sub(" ", normal_form(description))))


def names_agent(agent: str) -> bool:
    """Whether Contrast/Bolus Agent (0018,0010) names one, and is not "NONE" or the like."""
    return normal_form(agent) not in _NO_AGENT


def names_bone(description: str) -> bool:
    """Whether a description names a reconstruction for bone."""
    return bool(_BONE.search(normal_form(description)))


def is_bone_kernel(kernel: str) -> bool:
    """Whether a Convolution Kernel (0018,1210) is one for bone or lung."""
    return bool(_BONE_KERNEL.match(normal_form(kernel)))


def names_map(text: str) -> bool:
    """Whether a series is a map, a rendering, or an energy far from the usual 60 to 80 keV."""
    text = normal_form(text)
    return bool(_MAP.search(text)) or any(int(energy) not in PLAIN_ENERGIES_KEV for energy in _KEV.findall(text))


def names_energy(text: str) -> bool:
    """Whether a series is a mixed or monoenergetic image of a dual-energy scan."""
    text = normal_form(text)
    return bool(_KEV.search(text) or _MIXED.search(text))


def names_other_part(description: str, body_part: str) -> bool:
    """Whether a series is of another part of the body than the head; its own name counts more than Body Part (0018,0015)."""
    for text in map(normal_form, (description, body_part)):
        if _HEAD.search(text):
            return False
        if _OTHER_PART.search(text):
            return True
    return False
