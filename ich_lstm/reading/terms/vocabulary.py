"""Interprets series descriptions, kernels and image types in the terms of many vendors and languages.

The words are in ``word_table.csv`` (:mod:`ich_lstm.reading.terms.word_table`); this module builds patterns from them.
All patterns apply to the normal form of a text: upper case, single spaces.
"""

import re

from ich_lstm.reading.terms.word_table import Vocabulary, normal_form, of_vocabulary

PLAIN_ENERGIES_KEV = range(60, 81)
_KEV = re.compile(r"\b(\d{2,3}) ?KEV\b")
_MIXED = re.compile(r"\b(MIXED|MONO|MONOENERGETIC|MONOCHROMATIC|VMI)\b")

# GE BONE, BONEPLUS, EDGE, LUNG; Philips YA to YE; Canon FC30 to FC39, FC50 to FC52, FC80 and up; Siemens 60 and up (H60s, Hr64h).
_BONE_KERNEL = re.compile(r"(BONE|EDGE|ULTRA|LUNG|SHARP|Y[A-E]\b|FC(3\d|5[0-2]|8\d)|[BHJUIQTD][A-Z]{0,2}[6-9]\d)")

# Kernel names: GE words; Philips UA to UE, YA to YE; Canon FC with two digits; Siemens letters, two digits, a letter.
_KERNEL = re.compile(
    r"(BONE(PLUS)?|EDGE|ULTRA|LUNG|SHARP|SOFT|STANDARD|STD|DETAIL|[UY][A-E]|[A-Z]{1,3}\d{2,3}[A-Z]?)(?![A-Z0-9])"
)

_VOLUME_GIVEN = r"(?<!\w)\d+ ?CC(?!\w)"


@of_vocabulary
def _localizer(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("localizer"))


@of_vocabulary
def _report(words: Vocabulary) -> re.Pattern[str]:
    about = rf"(?<!\w){words.any_of('report_about')}[ -]?{words.any_of('report_noun')}"
    return re.compile(f"{about}|{words.whole('report')}")


@of_vocabulary
def _map(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("map"))


@of_vocabulary
def _virtual_plain(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("virtual_plain"))


@of_vocabulary
def _plain(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("plain"))


@of_vocabulary
def _denial(words: Vocabulary) -> re.Pattern[str]:
    """Phrases that name contrast but say that none was given: "w/o IV contrast", "IV-", "kontrast yok", "造影なし"."""
    # These are not denials: "with and without contrast", "w/wo contrast", "con y sin contraste". A lookbehind has a fixed
    # length, so that each word for "and" needs its own.
    not_after_and = "".join(rf"(?<!\b{re.escape(normal_form(word))} )" for word in words.of("and"))
    agent = words.any_of("agent", "agent_short")
    between = f"(?:(?:{words.any_of('of_agent', 'agent')})[ -]+){{0,3}}"
    before = rf"(?<!\w){words.any_of('without')}[ -]*{between}{agent}(?!\w)"
    after = rf"(?<!\w){between}{agent}(?:-(?!\w)| -$|[ -]?{words.any_of('without_after')}(?!\w))"
    return re.compile(f"{not_after_and}(?:{before}|{after})|{words.whole('denied')}")


@of_vocabulary
def _given(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("given"))


@of_vocabulary
def _contrast(words: Vocabulary) -> re.Pattern[str]:
    with_agent = rf"(?<!\w){words.any_of('with')} {words.any_of('agent_short')}(?!\w)"
    return re.compile(f"{words.whole('agent', 'contrast')}|{with_agent}|{_VOLUME_GIVEN}")


@of_vocabulary
def _no_agent(words: Vocabulary) -> frozenset[str]:
    return frozenset({"", *map(normal_form, words.of("no_agent"))})


@of_vocabulary
def _bone(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("bone"))


@of_vocabulary
def _part(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("part"))


@of_vocabulary
def _head(words: Vocabulary) -> re.Pattern[str]:
    return re.compile(words.whole("head"))


def names_localizer(text: str) -> bool:
    """Whether a description or an image type denotes a scout view."""
    return bool(_localizer().search(normal_form(text)))


def names_report(text: str) -> bool:
    """Whether a text denotes a report or a screenshot."""
    return bool(_report().search(normal_form(text)))


def names_plain(text: str) -> bool:
    """Whether a description says that no contrast was given."""
    return bool(_plain().search(normal_form(text)))


def names_contrast(description: str) -> bool:
    """Whether a description says that contrast was given.

    Example:
        >>> [names_contrast(text) for text in ("POST CONTRAST", "PRE CONTRAST 5MM", "4cc sec 150cc", "Post fossa", "CRANE IV-")]
        [True, False, True, False, False]
    """
    text = normal_form(description)
    return bool(_given().search(text) or _contrast().search(_denial().sub(" ", text)))


def names_agent(agent: str) -> bool:
    """Whether Contrast/Bolus Agent (0018,0010) names an agent, rather than "NONE", "sans injection" or the like."""
    text = normal_form(agent)
    if text in _no_agent():
        return False
    rest = _denial().sub(" ", text).strip()
    return rest not in _no_agent() and bool(re.search(r"\w", rest))


def names_bone(description: str) -> bool:
    """Whether a description denotes a bone reconstruction."""
    return bool(_bone().search(normal_form(description)))


def is_bone_kernel(kernel: str) -> bool:
    """Whether a Convolution Kernel (0018,1210) is a bone or lung kernel."""
    return bool(_BONE_KERNEL.match(normal_form(kernel)))


def kernel_name(kernel: str) -> str:
    """A Convolution Kernel (0018,1210) as vendors name it; empty for any other text, which could identify a person.

    Example:
        >>> [kernel_name(text) for text in ("H31s", "Hr40f\\\\3", "BONEPLUS", "FC21", "H40 Smith", "Smith")]
        ['H31S', 'HR40F', 'BONEPLUS', 'FC21', 'H40', '']
    """
    found = _KERNEL.match(normal_form(kernel))
    return found[0] if found else ""


def names_map(text: str) -> bool:
    """Whether a text denotes a map, a rendering, a result of other software, or an energy far from the usual 60 to 80 keV."""
    text = normal_form(text)
    return bool(_map().search(text)) or any(int(energy) not in PLAIN_ENERGIES_KEV for energy in _KEV.findall(text))


def names_virtual_plain(text: str) -> bool:
    """Whether a text denotes a series from which contrast was removed by computation."""
    return bool(_virtual_plain().search(normal_form(text)))


def names_energy(text: str) -> bool:
    """Whether a text denotes a mixed or monoenergetic image of a dual-energy scan."""
    text = normal_form(text)
    return bool(_KEV.search(text) or _MIXED.search(text))


def names_other_part(description: str, body_part: str) -> bool:
    """Whether a series shows another part of the body than the head; its description overrides Body Part (0018,0015)."""
    for text in map(normal_form, (description, body_part)):
        if _head().search(text):
            return False
        if _part().search(text):
            return True
    return False
