"""Evidence of a contrast agent in a header: its name, or the route and amount of its administration (PS3.3 C.7.6.4)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from ich_lstm.reading.terms import vocabulary
from ich_lstm.reading.terms.charset import UNDECODED

AGENT = "Contrast/Bolus Agent (0018,0010)"
AGENT_SEQUENCE = 0x00180012
_CODE_MEANING = 0x00080104
_UNNAMED = "contrast agent"

_QUANTITIES = {
    0x00181041: "Contrast/Bolus Volume (0018,1041)",
    0x00181044: "Contrast/Bolus Total Dose (0018,1044)",
    0x00181046: "Contrast Flow Rate (0018,1046)",
    0x00181047: "Contrast Flow Duration (0018,1047)",
    0x00181049: "Contrast/Bolus Ingredient Concentration (0018,1049)",
    0x00181042: "Contrast/Bolus Start Time (0018,1042)",
    0x00181043: "Contrast/Bolus Stop Time (0018,1043)",
}
"""Attributes whose number says that contrast was given, if it is not zero."""

_TEXTS = {
    0x00181048: "Contrast/Bolus Ingredient (0018,1048)",
    0x00181040: "Contrast/Bolus Route (0018,1040)",
}
"""Attributes whose text says that contrast was given; a protocol may have filled them where the agent says that there is none."""


def told_contrast(elements: Mapping[int, Any]) -> str:
    """The first attribute that says that contrast was given, apart from the agent; empty if none does.

    Args:
        elements: Raw elements by tag, as pydicom cuts them out.
    """
    for tag, name in _QUANTITIES.items():
        element = elements.get(tag)
        if element is not None and type(element.value) is bytes and re.search(rb"[1-9]", element.value):
            return name
    for tag, name in _TEXTS.items():
        element = elements.get(tag)
        if element is not None and type(element.value) is bytes and vocabulary.names_agent(element.value.decode("latin-1")):
            return name
    return ""


def agent_of_sequence(data_set: Dataset) -> str:
    """The agent by its code's meaning in Contrast/Bolus Agent Sequence (0018,0012); empty if the sequence is, or is missing."""
    if AGENT_SEQUENCE not in data_set:
        return ""
    try:
        items = data_set[AGENT_SEQUENCE].value or []
        meanings = [str(item[_CODE_MEANING].value) if _CODE_MEANING in item else _UNNAMED for item in items if len(item)]
    except Exception:  # pydicom's, of many kinds: a sequence that cannot be parsed is none that says "none"
        return _UNNAMED
    return " + ".join(meanings)


def contrast_by_header(agents: Iterable[str], told: Iterable[str]) -> str:
    """The attribute that says that contrast was given in a series; empty if none does.

    Args:
        agents: Contrast/Bolus Agent of its slices.
        told: What :func:`told_contrast` gave for its slices.
    """
    named = set(agents)
    if any(UNDECODED in agent or vocabulary.names_agent(agent) for agent in named):
        return AGENT
    denied = any(agent.strip() for agent in named)
    return next((name for name in sorted(set(told)) if name and not (denied and name in _TEXTS.values())), "")
