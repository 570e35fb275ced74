"""CLAIM 2024 (checklist for artificial intelligence in medical imaging): its items, and a table of a run's answers.

Source: Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300. The items are paraphrased; the published wording is
authoritative.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

OPEN = "open: for the authors"
"""The answer where the authors must add information."""

KNOWN, IN_PART, UNKNOWN = "known", "in part", "open"
"""The statuses of an answer: complete, incomplete and missing."""


class Item(NamedTuple):
    """One item of the checklist.

    Args:
        number: The number of the item in the checklist.
        section: The section of the manuscript.
        text: A paraphrase of the item.
    """

    number: int
    section: str
    text: str


class Answer(NamedTuple):
    """The answer to one item.

    Args:
        text: The known part of the answer; empty if nothing is known.
        missing: The information that the authors still have to add; empty if the answer is complete.
    """

    text: str
    missing: str = ""


_BY_SECTION: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Title", ("Identification as a study of artificial intelligence, and the kind of method",)),
    ("Abstract", ("Structured summary of design, methods, results and conclusions",)),
    (
        "Introduction",
        (
            "Scientific and clinical background, with the intended use and role of the method",
            "Aims, objectives and hypotheses",
        ),
    ),
    ("Methods: design", ("Prospective or retrospective design", "Goal of the study")),
    (
        "Methods: data",
        (
            "Sources of the data",
            "Inclusion and exclusion criteria",
            "Preprocessing of images and labels",
            "Selection of a subset of the data, if not all were used",
            "De-identification methods",
            "Handling of missing data",
            "Image acquisition protocol",
        ),
    ),
    (
        "Methods: reference standard",
        (
            "Definition of the reference standard, and how it was obtained",
            "Reasons for choosing this reference standard",
            "Annotators, and their qualifications and training",
            "Annotation of the test set",
            "Agreement between annotators and of each annotator with repeated annotations",
        ),
    ),
    ("Methods: partitions", ("Assignment of cases to partitions", "Level at which the partitions are disjoint")),
    ("Methods: testing data", ("Intended sample size, and how it was determined",)),
    (
        "Methods: model",
        (
            "Detailed description of the model: inputs, outputs and all layers in between",
            "Libraries, frameworks and packages, with versions",
            "Initialization of the parameters",
        ),
    ),
    (
        "Methods: training",
        (
            "Training in detail: augmentation, hyperparameters and number of models",
            "Selection of the final model",
            "Ensembling, if any",
        ),
    ),
    (
        "Methods: evaluation",
        (
            "Performance metrics",
            "Measures of significance and uncertainty",
            "Robustness or sensitivity analyses",
            "Methods to explain or interpret the model",
            "Evaluation on internal data",
            "Testing on external data",
            "Registration of a clinical trial",
        ),
    ),
    (
        "Results: data",
        (
            "Numbers of included and excluded patients or examinations, as a flow diagram",
            "Demographic and clinical characteristics of the cases in each partition",
        ),
    ),
    (
        "Results: performance",
        (
            "Performance on all partitions, with statistical uncertainty",
            "Diagnostic performance with its precision, such as confidence intervals",
            "Failure analysis of incorrectly classified cases",
        ),
    ),
    ("Discussion", ("Limitations", "Implications for practice: intended use and clinical role")),
    (
        "Other",
        (
            "Access to the full protocol or further technical details",
            "Availability of software, model and data",
            "Funding and other support, and the role of funders",
        ),
    ),
)

ITEMS = tuple(
    Item(number, section, text)
    for number, (section, text) in enumerate(((section, text) for section, texts in _BY_SECTION for text in texts), start=1)
)
"""All 44 items, in order."""


def fill_claim(answers: Mapping[int, Answer]) -> pd.DataFrame:
    """Tabulate the checklist with the answers of a run.

    Args:
        answers: The answers by the number of the item; those with an empty text count as unknown.

    Returns:
        The columns ``item``, ``section``, ``text``, ``status`` (`KNOWN`, `IN_PART` or `UNKNOWN`) and ``answer``, in which `OPEN`
        precedes the information that the authors still have to add.
    """
    rows = []
    for item in ITEMS:
        text, missing = answers.get(item.number, Answer(""))
        if not text:
            status, answer = UNKNOWN, OPEN
        elif missing:
            status, answer = IN_PART, f"{text} {OPEN.capitalize()}: {missing}."
        else:
            status, answer = KNOWN, text
        rows.append({"item": item.number, "section": item.section, "text": item.text, "status": status, "answer": answer})
    return pd.DataFrame(rows)
