"""MODEL_CARD.md: the fields of Hugging Face's template and the sections of Mitchell et al., as far as a run records them.

Sources: the template of huggingface_hub; Mitchell et al., Model Cards for Model Reporting, FAT* 2019:220-229.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd
import yaml

from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import Figures, main_rows
from ich_lstm.evaluation.report.cohort import FlowStep
from ich_lstm.evaluation.report.contents import ReportContents
from ich_lstm.evaluation.report.descriptions import (
    amounts,
    describe_initialization,
    describe_software,
    describe_thresholds,
    describe_truth,
    describe_uncertainty,
    network_rows,
    preprocessing_rows,
    split_rows,
    training_rows,
)
from ich_lstm.evaluation.report.tables import markdown_table, readable_tables
from ich_lstm.evaluation.run_facts import StudyFacts
from ich_lstm.formatting import RESEARCH_USE
from ich_lstm.labels import ANY, LABELS

OPEN = "*Open: for the authors.*"

LEADING = ("auroc", "average precision", "sensitivity", "specificity", "calibration slope", "calibration intercept", "ece")
"""Columns of the table of results, if they were computed; the report contains all figures."""

OUT_OF_SCOPE = (
    "Diagnosis, triage or any decision on a patient. Other modalities, other parts of the body, CT with contrast, CT of children "
    "if there were none in the training data. Findings other than the labels of this model."
)
RISKS = (
    "A probability is valid for the population on which it was calibrated; where hemorrhage is rarer, it is too high. A scan "
    "that is not called positive may still show hemorrhage. Labels contain errors, which affect the figures."
)
RECOMMENDATIONS = (
    "Choose thresholds on validation patients of the site of use (`ich-evaluate --calibrate`), check the calibration there, "
    "and have a radiologist read every scan."
)


def model_card(contents: ReportContents) -> str:
    """Write the model card in Markdown, with the metadata of the Hugging Face Hub at its head.

    Args:
        contents: The contents of the report.
    """
    evidence, figures, facts = contents[:3]
    name = str(evidence.source["model"].get("name") or facts.model.get("name") or "model")
    sections = [
        *_details(name, evidence, facts),
        *_uses(facts),
        *_training(facts),
        *_evaluation(contents),
        *_remainder(name),
    ]
    text = [
        f"---\n{yaml.safe_dump(_metadata(name, figures), sort_keys=False)}---",
        f"# Model card: {name}",
        f"**{RESEARCH_USE}**",
    ]
    for level, title, body in sections:
        text += [f"{'#' * level} {title}", *([body] if body else [])]
    return "\n\n".join(text) + "\n"


Section = tuple[int, str, str]
"""The level of a heading, its text, and the body below it."""


def _metadata(name: str, figures: Figures) -> dict[str, Any]:
    """Collect the known metadata; the licence is left to the authors."""
    about: dict[str, Any] = {
        "library_name": "ich_lstm",
        "pipeline_tag": "image-classification",
        "tags": ["medical", "radiology", "ct", "head-ct", "intracranial-hemorrhage", "research-use-only"],
        "metrics": [metric for metric in figures.protocol.figures if metric in ("auroc", "log_loss", "brier", "f1", "accuracy")],
    }
    rows = main_rows(figures.table)
    rows = rows[(rows["label"] == ANY) & (rows["metric"] == "auroc") & rows["value"].notna()]
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"type": "head-ct", "name": f"{level}s of the evaluation"},
            "metrics": [{"type": "auroc", "name": f"AUROC of {ANY}", "value": round(value, 4)}],
        }
        for level, value in zip(rows["level"], rows["value"].tolist(), strict=True)
    ]
    return about | ({"model-index": [{"name": name, "results": results}]} if results else {})


def _details(name: str, evidence: Evidence, facts: StudyFacts) -> list[Section]:
    weights = evidence.source["model"].get("hash") or facts.model.get("hash")
    lines = [
        f"- **Model:** {name}" + (f", weights `{weights}`" if weights else ""),
        f"- **Model date and version:** {OPEN}",
        f"- **Developed by:** {OPEN}",
        f"- **Funded by:** {OPEN}",
        "- **Model type:** CNN on each slice of a head CT, with or without a recurrent network along the slices",
        "- **Language(s):** none; images only",
        f"- **License:** {OPEN} The terms of the data may apply to the weights.",
        f"- **Finetuned from:** {describe_initialization(facts) or OPEN}",
    ]
    return [
        (2, "Model details", ""),
        (3, "Model description", _settings_table({"value": network_rows(facts)}) or OPEN),
        (3, "Model facts", "\n".join(lines)),
        (3, "Model sources", f"- **Repository:** {OPEN}\n- **Paper:** {OPEN}\n- **Demo:** {OPEN}"),
    ]


def _uses(facts: StudyFacts) -> list[Section]:
    synthetic = "\n\nThis model was trained or evaluated on **synthetic heads**; its figures say nothing about patients."
    return [
        (2, "Uses (intended use)", ""),
        (
            3,
            "Direct use (primary intended uses and users)",
            f"Research on intracranial hemorrhage in head CT. {RESEARCH_USE} {OPEN}",
        ),
        (3, "Downstream use", f"Training on further data, comparison with other models. {OPEN}"),
        (3, "Out-of-scope use", OUT_OF_SCOPE),
        (2, "Bias, risks and limitations (caveats)", RISKS + (synthetic if facts.is_synthetic else "") + f"\n\n{OPEN}"),
        (3, "Recommendations", RECOMMENDATIONS),
        (
            3,
            "Ethical considerations",
            f"The data are images of patients; nothing in this card identifies a patient. Approval and consent: {OPEN}",
        ),
        (
            2,
            "How to get started with the model",
            '```python\nimport ich_lstm\n\nmodel = ich_lstm.ScanClassifier.load("model/")\n'
            'for prediction in model.predict("export/"):\n    print(prediction)\n```',
        ),
    ]


def _training(facts: StudyFacts) -> list[Section]:
    times = {} if facts.seconds is None else {"duration of the run": f"{facts.seconds / 60:,.0f} minutes"}
    return [
        (2, "Training details", ""),
        (3, "Training data", f"{_settings_table({'value': split_rows(facts)})}\n\nOrigin: {OPEN}".strip()),
        (3, "Training procedure", _procedure(facts)),
        (4, "Preprocessing", _settings_table({"value": preprocessing_rows(facts)}) or OPEN),
        (4, "Speeds, sizes, times", _settings_table({"value": times}) or OPEN),
    ]


def _procedure(facts: StudyFacts) -> str:
    """Tabulate the recorded fits, with a column for each."""
    table = _settings_table(dict(training_rows(facts)))
    return f"These settings were recorded with the weights. Each column is one fit, in order.\n\n{table}" if table else OPEN


def _settings_table(columns: dict[str, dict[str, str]]) -> str:
    frame = pd.DataFrame(columns).fillna("")
    return markdown_table(frame.rename_axis("setting").reset_index()) if len(frame) else ""


def _flow_table(flow: Sequence[FlowStep]) -> str:
    """Tabulate the data flow, with a row for each box."""
    excluded = ["; ".join(f"{reason}: {amounts(counts)}" for reason, counts in step.excluded) for step in flow]
    rows = {"step": [step.title for step in flow], "count": [amounts(step.counts) for step in flow], "excluded": excluded}
    return markdown_table(pd.DataFrame(rows))


def _evaluation(contents: ReportContents) -> list[Section]:
    evidence, figures = contents[:2]
    groups = ", ".join(name.replace("_", " ") for name in contents.groupings)
    factors = f"Figures are given by {groups}." if groups else "Results are not given by subgroup."
    metrics = ", ".join(name.replace("_", " ") for name in figures.protocol.figures)
    how = " ".join(filter(None, [f"{metrics.capitalize()}.", describe_uncertainty(figures), describe_thresholds(figures)]))
    results: list[str] = []
    for title, cells, over_all in readable_tables(figures):
        shown = [column for column in LEADING if column in cells] or list(cells.columns)
        results += [f"**{title}**", *([over_all] if over_all else [])]
        results += [markdown_table(cells[shown].reindex(LABELS).reset_index())] if shown else []
    return [
        (2, "Evaluation", ""),
        (
            3,
            "Testing data",
            "\n\n".join(filter(None, [_flow_table(contents.flow), describe_truth(evidence), f"Origin: {OPEN}"])),
        ),
        (3, "Factors", f"{factors} Age, sex, scanner and site: {OPEN}"),
        (3, "Metrics", how),
        (3, "Results (quantitative analyses)", "\n\n".join(results)),
        (4, "Summary", "\n".join(f"- {line}" for line in contents.remarks)),
    ]


def _remainder(name: str) -> list[Section]:
    hardware = "\n".join(
        f"- **{field}:** {OPEN}" for field in ("Hardware", "Hours used", "Provider and region", "Carbon emitted")
    )
    glossary = (
        "Study, series and slice: as defined by DICOM. Scan: one series as a volume. Any: at least one of the types. AUROC: area "
        "under the receiver operating characteristic curve. ECE: expected calibration error."
    )
    return [
        (2, "Model examination", OPEN),
        (2, "Environmental impact", hardware),
        (2, "Technical specifications", describe_software()),
        (2, "Citation", OPEN),
        (2, "Glossary", glossary),
        (
            2,
            "More information",
            f"`report.html`, `claim.md` and `tables/` are in the folder of this card of {name} (ich_lstm {version('ich_lstm')}).",
        ),
        (2, "Model card authors", OPEN),
        (2, "Model card contact", OPEN),
    ]
