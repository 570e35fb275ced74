"""What series descriptions, kernels and image types say, in the words of many vendors.

All patterns are for the normal form of a text: upper case, single spaces.
"""

import re
import unicodedata

_SEPARATORS = re.compile(r"[\s_,;:()\[\]/|\\^]+")
_PLAIN_LETTERS = str.maketrans({"Ł": "L", "Ø": "O", "Æ": "AE", "Đ": "D"})


def _any(*groups: str) -> str:
    """One pattern of many words."""
    return "|".join(word.replace("~", "[ -]?") for group in groups for word in group.split())


# Words parted by spaces; ``~`` is a space, a hyphen or nothing.
_LOCALIZER_WORDS = r"""
    LOCALI[SZ]ER SCOUT TOPOGRAM SURVIEW SCANOGRAM PILOT SCANO\b TOPO\b
    LOKALI[SZ] UE?BERSICHT REPERAGE LOCALIZADOR LOCALIZZAT ESCANOGRAM OVERZICHT SKANOGRAM ICHIGIME DINGWEI
"""
_REPORT_KIND_WORDS = r"""
    REPORT INFO SUMMARY RECORD PROTO[CK]OL SHEET BERICHT RAPPORT INFORME RELATORIO REFERTO RAPOR RAPORT PAGE
"""
_REPORT_WORDS = r"""
    RADIATION SCREEN~(SAVE|SHOT|CAPTURE) REPORT RESULTS BEFUND BERICHT RAPPORT INFORME RELATORIO REFERTO RAPORU? RAPORT
    BILDSCHIRM CAPTURA COPIE~ECRAN KEY~IMAGES?
"""
_MAPS_WORDS = r"""
    IODINE IODE IODIO YODO JOD(KARTE|BILD)? VNC VIRTUAL~NON BONE~REMOV\w* BONELESS BONE~SUBTR\w* SUBTRA\w* SUBTRAKTION
    KNOCHENENTFERN\w* MIP MINIP VRT? VOLUME~REND\w* RENDER\w* 3D CBF CBV MTT TTP TMAX COLOU?R FUSION
    PERFUSION\w* PERFUSIE PERFUSAO PERFUZJ\w* PERFUZYON
"""
_PLAIN_WORDS = r"""
    PLAIN NATIV\w* NCCT NECT UNENHANCED NON PRE WITHOUT SANS SIN SENZA OHNE SEM ZONDER BLANCO BEZ BASALE? SIMPLES?
    KONTRASTSIZ TANJUN PINGSAO
"""
_AGENTS_GIVEN_WORDS = r"""
    CONTRAST\w* KONTRAS\w* CECT CE C\+ ENHANCED ANGIO\w* ANJIO\w* CTA CTV VENOGRA\w* ARTERI\w* VENOUS VENOS\w* VENEU\w*
    DELAY\w* TARDI\w* SPATPHASE ORAL IV INJE[CK]\w* INYEC\w* INIE\w* KM MDC PDC CIV ZOU?EI ZENGQIANG
"""
_BONES_WORDS = r"""
    BONES? KNOCHEN OSS?EU[XS]?E? OS HUESO OSEO OSEA OSSO OSSA OSSE[AO] BOT BOTTEN KEMIK KOSC\w* KOSTN\w* KOTSU GUCHUANG
    LUNG EDGE SHARP PETROUS FELSENBEIN ROCHERS? IAC INNER~EAR
"""
_PARTS_WORDS = r"""
    NECK C~SPINE CERVICAL\w* SPINE CHEST THORA[XK]\w* ABD\w* PELVIS LUMBAR SINUS\w* ORBITS? FACE FACIAL MAXILL\w* MANDIBLE
    TEMPORAL~BONES? KNEE HIP SHOULDER WRIST ANKLE FOOT HAND ELBOW EXTREMITY ARM LEG HEART LUNGS?
    HALS HWS BWS LWS WIRBEL\w* BECKEN NNH NASENNEBEN\w* ORBITA GESICHT\w* COU RACHIS BASSIN POUMONS? GENOU
    CUELLO COLUMNA TORAX SENOS RODILLA COLLO TORACE ADDOME RACHIDE BACINO SENI PESCOCO COLUNA SEIOS QUADRIL
    NEK BUIK BEKKEN WERVEL\w* BOYUN TORAKS BATIN SZYJ\w* KLATK\w* BRZUCH\w* MIEDNIC\w* KREGOSLUP\w*
    KEIBU KYOU?BU FUKUBU JINGBU XIONGBU FUBU
"""
_HEADS_WORDS = r"""
    HEAD\w* BRAIN SKULL CRAN\w* KRANI\w* CEREBR\w* STROKE NEURO\w* SCHA?E?DEL\w* KOPF HIRN\w* TETE CERVEAU ENC[EP]+H?AL\w*
    CABEZA CABECA TESTA CERVELLO HOOFD HERSEN\w* SCHEDEL BEYIN KAFA GLOW\w* MOZG\w* CZASZK\w* TOUBU TOULU NAOBU
"""

LOCALIZER = re.compile(rf"\b({_any(_LOCALIZER_WORDS)})|定位|位置決")
REPORT = re.compile(rf"\b((DOSE|DOSIS|DOSI|DOZ|EXAM|PATIENT\w*)[ -]?({_any(_REPORT_KIND_WORDS)})|{_any(_REPORT_WORDS)})")
_MAP = re.compile(rf"\b({_any(_MAPS_WORDS)})\b")
PLAIN_ENERGIES_KEV = range(60, 81)
_KEV = re.compile(r"\b(\d{2,3}) ?KEV\b")
_MIXED = re.compile(r"\b(MIXED|MONO|MONOENERGETIC|MONOCHROMATIC)\b")

# What denies contrast, and how it is called; English, German, French, Spanish, Italian, Portuguese, Dutch, Turkish, Polish.
_WITHOUT = _any(
    "PRE NON NO WITHOUT W~O WO BEFORE UN OHNE O\\. VOR KEIN SANS AVANT SIN ANTES~DE SENZA PRIMA~DEL SEM S ZONDER GEEN VOOR BEZ",
    "PRZED",
)
_AGENT = _any(
    "CONTRAST\\w* KONTRAS\\w* CON ENHANC\\w* INJE[CK]\\w* INYEC\\w* INIE\\w* MDC MDK KM CM CE PDC CIV IV I~V C",
)
PLAIN = re.compile(rf"\b(({_any(_PLAIN_WORDS)})\b|C-(?=\W|$))|単純|平扫|平掃|単純CT")
# Not in "with and without contrast", "w/wo contrast", "con y sin contraste".
_AND = ("AND", "W", "WITH", "UND", "MIT", "ET", "AVEC", "Y", "CON", "E", "COM", "EN", "MET", "I", "Z")
_DENIAL = re.compile(
    "".join(rf"(?<!\b{word} )" for word in _AND)
    + rf"\b(({_WITHOUT})[ -]*(IV |PRODUIT DE |MEDIO DE |MEZZO DI |MEIO DE )?({_AGENT})\b|KONTRAST(SIZ|FREI|LOS)\w*)"
    + "|造影なし|非造影|非增强"
)
# "POST" means after contrast, but not in posterior fossa ("fosse post"), postoperative or post-traumatic.
_CONTRAST = re.compile(
    rf"\b({_any(_AGENTS_GIVEN_WORDS)}|(?<!FOSSE )(?<!FOSSA )(?<!FOSA )POST(?![ -]?(FOSSA|FOSSE|FOSA|OP|SURG|TRAUMA))|"
    r"(WITH|W|MIT|AVEC|COM|MET) (CON|C|KM|IV)|\d+ ?CC)(?=\W|$)|造影|增强|増強|增強"
)
_NO_AGENTS = """
    NONE | NO | N | N A | NA | NIL | 0 | WITHOUT | NO CONTRAST | NON CONTRAST | NONE GIVEN | NOT GIVEN | - | KEIN | KEINS | OHNE
    | AUCUN | SANS | SIN | NINGUNO | NESSUNO | SENZA | NENHUM | SEM | GEEN | YOK | BRAK | NASHI
"""
_NO_AGENT = frozenset({"", *(name.strip() for name in _NO_AGENTS.split("|"))})

_BONE = re.compile(rf"\b({_any(_BONES_WORDS)})\b|骨")
# GE BONE, BONEPLUS, EDGE, LUNG; Philips YA to YE; Canon FC30 to FC39, FC50 to FC52, FC80 on; Siemens from 60 up (H60s, Hr64h).
_BONE_KERNEL = re.compile(r"(BONE|EDGE|ULTRA|LUNG|SHARP|Y[A-E]\b|FC(3\d|5[0-2]|8\d)|[BHJUIQTD][A-Z]{0,2}[6-9]\d)")

# Words of GE; Philips UA to UE, YA to YE; Canon FC and two digits; Siemens letters, two digits, a letter.
_KERNEL = re.compile(
    r"(BONE(PLUS)?|EDGE|ULTRA|LUNG|SHARP|SOFT|STANDARD|STD|DETAIL|[UY][A-E]|[A-Z]{1,3}\d{2,3}[A-Z]?)(?![A-Z0-9])"
)

_OTHER_PART = re.compile(rf"\b({_any(_PARTS_WORDS)})\b|胸部|腹部|頸部|颈部|頚部")
_HEAD = re.compile(rf"\b({_any(_HEADS_WORDS)})\b|頭|头|脑|脳|颅")


def normal_form(text: str) -> str:
    """Upper case without accents, with single spaces for separators.

    Example:
        >>> normal_form("Head_Plain(5mm)"), normal_form("Schädel nativ")
        ('HEAD PLAIN 5MM', 'SCHADEL NATIV')
    """
    if not text.isascii():
        parted = unicodedata.normalize("NFKD", text)
        text = unicodedata.normalize("NFC", "".join(letter for letter in parted if not unicodedata.combining(letter)))
    return _SEPARATORS.sub(" ", text.upper().translate(_PLAIN_LETTERS)).strip()


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


def kernel_name(kernel: str) -> str:
    """A Convolution Kernel (0018,1210) as vendors name it; empty if it is any other text, which may say anything.

    Example:
        >>> [kernel_name(text) for text in ("H31s", "Hr40f\\\\3", "BONEPLUS", "FC21", "H40 Smith", "Smith")]
        ['H31S', 'HR40F', 'BONEPLUS', 'FC21', 'H40', '']
    """
    found = _KERNEL.match(normal_form(kernel))
    return found[0] if found else ""


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
