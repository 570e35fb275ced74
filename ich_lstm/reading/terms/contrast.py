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
"""Attributes whose number, if it is not zero, indicates that contrast was given."""

_TEXTS = {
    0x00181048: "Contrast/Bolus Ingredient (0018,1048)",
    0x00181040: "Contrast/Bolus Route (0018,1040)",
}
"""Attributes whose text indicates that contrast was given. A protocol may fill them although the agent is given as none."""


def contrast_evidence(elements: Mapping[int, Any]) -> str:
    """The first attribute, other than the agent, that indicates contrast; empty if there is none.

    Args:
        elements: Raw elements by tag, as pydicom extracts them.
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
    """The agent as the code meaning in Contrast/Bolus Agent Sequence (0018,0012); empty if the sequence is empty or missing."""
    if AGENT_SEQUENCE not in data_set:
        return ""
    try:
        items = data_set[AGENT_SEQUENCE].value or []
        meanings = [str(item[_CODE_MEANING].value) if _CODE_MEANING in item else _UNNAMED for item in items if len(item)]
    except Exception:  # pydicom raises many kinds; a sequence that cannot be parsed does not state that there is no agent
        return _UNNAMED
    return " + ".join(meanings)


def contrast_by_header(agents: Iterable[str], evidence: Iterable[str]) -> str:
    """The attribute that indicates contrast in a series; empty if there is none.

    Args:
        agents: Contrast/Bolus Agent (0018,0010) of each slice.
        evidence: Result of :func:`contrast_evidence` for each slice.
    """
    named = set(agents)
    if any(UNDECODED in agent or vocabulary.names_agent(agent) for agent in named):
        return AGENT
    denied = any(agent.strip() for agent in named)
    return next((name for name in sorted(set(evidence)) if name and not (denied and name in _TEXTS.values())), "")
