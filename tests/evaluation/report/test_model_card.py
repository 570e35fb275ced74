"""The model card: Hugging Face's fields and the sections of Mitchell et al."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from report_files import write_study

from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import compute_figures
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.report.contents import ReportContents, Supplements, gather_contents
from ich_lstm.evaluation.report.model_card import OPEN, model_card
from ich_lstm.evaluation.run_facts import StudyFacts, read_study
from ich_lstm.statistics import FigureSettings

HEADINGS = (
    "Model details",
    "Uses",
    "Direct use",
    "Downstream use",
    "Out-of-scope use",
    "Bias, risks and limitations",
    "Recommendations",
    "Ethical considerations",
    "How to get started with the model",
    "Training data",
    "Training procedure",
    "Testing data",
    "Factors",
    "Metrics",
    "Results",
    "Environmental impact",
    "Technical specifications",
    "Citation",
    "Model card authors",
    "Model card contact",
)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> ReportContents:
    study: Path = write_study(tmp_path_factory.mktemp("study"))
    evidence = read_run(study)
    return gather_contents(
        evidence,
        compute_figures(evidence, all_figures(levels=("scan",)), settings=FigureSettings(replicates=100)),
        read_study(study),
        Supplements(),
    )


def test_the_metadata_are_yaml_with_the_measured_auroc(contents: ReportContents) -> None:
    _, metadata, _ = model_card(contents).split("---\n", 2)
    about = yaml.safe_load(metadata)
    assert about["library_name"] == "ich_lstm"
    measured = contents.figures.table.query("label == 'any' and metric == 'auroc'")["value"].iloc[0]
    assert about["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(measured, abs=5e-5)
    assert "license" not in about  # the authors' to name


def test_every_section_is_there(contents: ReportContents) -> None:
    titles = [line.lstrip("# ") for line in model_card(contents).splitlines() if line.startswith("#")]
    assert [heading for heading in HEADINGS if not any(title.startswith(heading) for title in titles)] == []


def test_what_only_authors_know_is_open(contents: ReportContents) -> None:
    card, bare = model_card(contents), model_card(contents._replace(facts=StudyFacts()))
    assert f"- **License:** {OPEN}" in card
    assert card.count(OPEN) < bare.count(OPEN)
    assert re.search(r"\| encoder backbone +\| resnet18 +\|", card)


def test_what_is_said_of_the_training_is_what_the_run_recorded(contents: ReportContents) -> None:
    card, facts = model_card(contents), contents.facts
    for name, value in (
        ("windows channels", "40/80"),
        ("head", "LSTM"),
        ("head num layers", "2"),
        ("split", "at random"),
        ("train", "70 patients"),
        ("size", "256"),
        ("steps", "1,200"),
    ):
        assert re.search(rf"\| {name} +\| {value}", card), name
    bare = model_card(contents._replace(facts=replace(facts, model={}, split={}, subsets={}, seconds=None)))
    for word in ("end to end", "whole scans", "backbone", "minutes", "at random", "40/80"):
        assert word not in bare, word


def test_settings_in_groups_stand_below_the_name_of_their_group(contents: ReportContents) -> None:
    settings = {"encoder": {"backbone": "resnet18", "batch_norm": "frozen"}, "head": {"hidden_size": 64}}
    card = model_card(contents._replace(facts=StudyFacts(model={"settings": settings})))
    for name, value in (("encoder backbone", "resnet18"), ("encoder batch norm", "frozen"), ("head hidden size", "64")):
        assert re.search(rf"\| {name} +\| {value} +\|", card), name


def test_figures_stand_with_their_intervals(contents: ReportContents) -> None:
    row = contents.figures.table.query("label == 'any' and metric == 'auroc'").iloc[0]
    assert f"| {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}) |" in model_card(contents)


def test_synthetic_heads_are_named(contents: ReportContents) -> None:
    facts = StudyFacts(is_synthetic=True)
    assert "synthetic heads" in model_card(contents._replace(facts=facts))
