"""Evaluation protocols of published studies, by name, so that results can be compared with their tables."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.aggregate import LEVELS, OWN, Level, Output
from ich_lstm.statistics.measures.figures import KINDS

WEIGHTED_LOG_LOSS = "weighted_log_loss"


class View(NamedTuple):
    """One level, aggregation and output at which the evidence is evaluated.

    Args:
        level: ``slice``, ``scan`` or ``patient``.
        aggregation: Method by which `cases_at` aggregates slices to scans; unused at the level of slices.
        output: The output of the model to evaluate: ``sequence`` or ``encoder``.
    """

    level: Level
    aggregation: str = OWN
    output: Output = "sequence"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Levels, figures and labels by which a study evaluated its model.

    Args:
        name: The value of ``--protocol``.
        views: The views in the order of the tables.
        figures: The figures of the published tables in their order: keys of `KINDS`, and the weighted log loss.
        truth: The rule by which several readers decide on a finding; empty if the data have one set of labels.
        threshold: The operating point of the proportions, for all labels.
        source: The publication that evaluated in this way.
        notes: Remarks that a reader must know to compare the numbers.
    """

    name: str
    views: tuple[View, ...]
    figures: tuple[str, ...]
    truth: Literal["", "majority"] = ""
    threshold: float = 0.5
    source: str
    notes: tuple[str, ...] = ()


HELD_OUT_IS_NOT_PRIVATE = (
    "Held-out patients of the training set are not the private test set: one system had a log loss of 0.0574 on held-out "
    "patients and 0.046 on the private set, another 0.0629 and 0.0522."
)
"""A remark wherever a log loss on held-out patients of RSNA's data is shown."""

_BURDUJA = "Burduja, Ionescu & Verga, Sensors 2020;20(19):5611"
_BURDUJA_VIEWS = tuple(View(level, "max", output) for level in ("slice", "scan") for output in ("encoder", "sequence"))
_BURDUJA_FIGURES = ("accuracy", "auroc", "sensitivity", "specificity")
_BURDUJA_NOTES = (
    "The publication does not state the aggregation to scans and the threshold; here they are the maximum over slices and 0.5.",
    "Their split was by series, so a patient could be in training and validation; the split here is by patient.",
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="rsna",
                views=(View("slice"),),
                figures=(WEIGHTED_LOG_LOSS, "log_loss"),
                source="RSNA Intracranial Hemorrhage Detection, Kaggle 2019",
                notes=(
                    HELD_OUT_IS_NOT_PRIVATE,
                    "The test set's labels are not public; ich-predict --submission writes predictions in the sample's order.",
                ),
            ),
            Protocol(
                name="cq500-nguyen",
                views=(View("scan", "max"),),
                figures=(WEIGHTED_LOG_LOSS, "auroc"),
                truth="majority",
                source="Nguyen et al., MIDL 2020, on CQ500 (Chilamkurthy et al., Lancet 2018;392:2388-2396)",
                notes=("A maximum over many slices is not calibrated, so its log loss says little about single slices.",),
            ),
            Protocol(
                name="burduja-table3",
                views=_BURDUJA_VIEWS,
                figures=_BURDUJA_FIGURES,
                source=f"{_BURDUJA}, on their validation scans",
                notes=_BURDUJA_NOTES,
            ),
            Protocol(
                name="burduja-table5",
                views=_BURDUJA_VIEWS,
                figures=_BURDUJA_FIGURES,
                source=f"{_BURDUJA}, on the 100 scans that three radiologists also read",
                notes=(*_BURDUJA_NOTES, "Evaluate predictions of the scans that were read, and no others."),
            ),
        )
    }
)


def find_protocol(name: str) -> Protocol:
    """Find a protocol by its name.

    Raises:
        ConfigError: If no protocol has this name.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        raise ConfigError(
            "unknown_protocol",
            where="--protocol",
            got=repr(name),
            expected=f"one of {', '.join(PROTOCOLS)}",
            todo=f"Did you mean {near[0]}?" if near else "",
        )
    return PROTOCOLS[name]


def all_figures(levels: tuple[Level, ...] = LEVELS, aggregation: str = OWN) -> Protocol:
    """The default protocol: every figure of the sequence model at every level.

    Args:
        levels: The levels at which figures are computed.
        aggregation: Method by which `cases_at` aggregates slices to scans.
    """
    views = tuple(View(level, aggregation) for level in levels)
    return Protocol(name="", views=views, figures=(WEIGHTED_LOG_LOSS, *KINDS), source="")
