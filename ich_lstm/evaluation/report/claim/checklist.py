"""CLAIM 2024 (checklist for artificial intelligence in medical imaging): the items that a run can answer, and the open ones.

Source: Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300. The items are paraphrased; the authors'
wording counts.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

OPEN = "open: for the authors"

KNOWN, IN_PART, UNKNOWN = "known", "in part", "open"


class Item(NamedTuple):
    """An item of the checklist.

    Args:
        number: Number of the item in the checklist.
        section: Section of the manuscript.
        text: What the item asks for.
    """

    number: int
    section: str
    text: str


class Answer(NamedTuple):
    """The answer of a run to an item.

    Args:
        text: Answer, as far as it is known; empty if it is not.
        missing: What the authors still have to add; empty if nothing is missing.
    """

    text: str
    missing: str = ""


_BY_SECTION: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Title", ("Say that the study is about artificial intelligence, and of which kind",)),
    ("Abstract", ("Sum up design, methods, results and conclusions, in parts",)),
    (
        "Introduction",
        (
            "Background, scientific and clinical: what the method is meant for, and its role",
            "Aims, objectives and hypotheses",
        ),
    ),
    ("Methods: design", ("Prospective or retrospective", "What the study is to achieve")),
    (
        "Methods: data",
        (
            "Where the data come from",
            "Who was included and who was not, and by which criteria",
            "What was done to images and labels before they were used",
            "Which parts of the data were taken, if not all",
            "How identities were removed",
            "What was done about missing data",
            "How the images were acquired",
        ),
    ),
    (
        "Methods: reference standard",
        (
            "What counts as the truth, and how it was found",
            "Why this reference standard",
            "Who made the annotations, with which training",
            "How the test set was annotated",
            "How far annotators agree, with one another and with themselves",
        ),
    ),
    ("Methods: partitions", ("How cases were assigned to partitions", "At which level the partitions share nothing")),
    ("Methods: testing data", ("Intended sample size, and how it was found",)),
    (
        "Methods: model",
        (
            "The model in detail: inputs, outputs, all layers between",
            "Libraries, frameworks, packages, with versions",
            "How the parameters were initialized",
        ),
    ),
    (
        "Methods: training",
        (
            "Training in detail: augmentation, settings, number of models",
            "How the final model was selected",
            "Ensembles, if any",
        ),
    ),
    (
        "Methods: evaluation",
        (
            "Which figures measure performance",
            "How significance and uncertainty were measured",
            "How robust results are: analyses of sensitivity",
            "Means to explain or interpret the model",
            "Evaluation on internal data",
            "Testing on external data",
            "Registration, if it is a clinical trial",
        ),
    ),
    (
        "Results: data",
        (
            "How many patients or examinations were included and excluded, as a diagram",
            "Demographic and clinical features of the cases in each partition",
        ),
    ),
    (
        "Results: performance",
        (
            "Performance with statistical uncertainty, on all partitions",
            "Diagnostic performance with its precision",
            "Failure analysis: cases that were classified wrongly",
        ),
    ),
    ("Discussion", ("Limitations", "What it means for practice: intended use, clinical role")),
    (
        "Other",
        (
            "Where the full protocol or further technical details are",
            "Whether software, model and data can be had",
            "Funding and other support; the role of funders",
        ),
    ),
)

ITEMS = tuple(
    Item(number, section, text)
    for number, (section, text) in enumerate(((section, text) for section, texts in _BY_SECTION for text in texts), start=1)
)
"""All 44 items, in order."""


def fill_claim(answers: Mapping[int, Answer]) -> pd.DataFrame:
    """The checklist with the answers of a run.

    Args:
        answers: Answers by the number of the item; those with an empty text count as unknown.

    Returns:
        ``item, section, text, status`` (`KNOWN`, `IN_PART` or `UNKNOWN`) and ``answer``, in which `OPEN` precedes what the
        authors still have to add.
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
