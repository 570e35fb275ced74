"""CLAIM 2024, filled by a run."""

from dataclasses import replace

import pytest
from report_files import write_study

from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import compute_figures
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.report.claim.answers import answer_claim
from ich_lstm.evaluation.report.claim.checklist import IN_PART, ITEMS, KNOWN, OPEN, UNKNOWN, Answer, fill_claim
from ich_lstm.evaluation.report.contents import Supplements, gather_contents
from ich_lstm.evaluation.run_facts import StudyFacts, read_study
from ich_lstm.statistics import FigureSettings


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory):
    study = write_study(tmp_path_factory.mktemp("study"))
    evidence = read_run(study)
    figures = compute_figures(evidence, all_figures(levels=("scan",)), settings=FigureSettings(replicates=100))
    return gather_contents(evidence, figures, read_study(study), Supplements())


def test_there_are_44_items_in_order() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 45))
    assert len({item.text for item in ITEMS}) == 44


def test_what_is_missing_is_said() -> None:
    table = fill_claim({2: Answer("known."), 3: Answer("half.", "the rest"), 4: Answer("", "all")}).set_index("item")
    assert table.loc[[1, 2, 3, 4], "status"].tolist() == [UNKNOWN, KNOWN, IN_PART, UNKNOWN]
    assert table.loc[[1, 4], "answer"].tolist() == [OPEN, OPEN]
    assert table.loc[3, "answer"].startswith("half.")
    assert table.loc[3, "answer"].endswith("the rest.")


def test_a_run_fills_what_it_knows_and_leaves_the_rest_open(contents) -> None:
    table = fill_claim(answer_claim(contents)).set_index("item")
    assert {1, 2, 3, 4, 5, 6, 15, 16, 17, 31, 33, 34, 40, 41, 44} <= set(table.index[table["status"] == UNKNOWN])
    assert {9, 19, 20, 22, 25, 28, 29, 32, 35, 38} <= set(table.index[table["status"] == KNOWN])
    numbers = contents.figures.table.query("level == 'scan' and label == 'any' and metric == 'auroc'").iloc[0]
    assert f"{numbers['value']:.3f} ({numbers['low']:.3f} to {numbers['high']:.3f})" in table.loc[37, "answer"]


def test_without_the_run_less_is_known(contents) -> None:
    bare = fill_claim(answer_claim(contents._replace(facts=StudyFacts()))).set_index("item")["status"]
    assert set(bare[[9, 19, 20, 22, 24, 25]]) == {UNKNOWN}


def test_studies_in_place_of_patients_are_not_called_patients(contents) -> None:
    facts = replace(contents.facts, config={"data": {"patient_ids": "study"}})
    assert "no patient is in two" not in answer_claim(contents._replace(facts=facts))[20].text


def test_another_data_set_is_external(contents) -> None:
    evidence = replace(contents.evidence, source={**contents.evidence.source, "kind": "predictions", "part": ""})
    answers = answer_claim(contents._replace(evidence=evidence))
    assert not answers[32].text
    assert "was not checked" in answers[33].text
    evidence = replace(evidence, source={**evidence.source, "kind": "checkpoint", "is_unseen": True})
    assert "neither trained nor selected" in answer_claim(contents._replace(evidence=evidence))[33].text


def test_a_threshold_that_was_given_is_not_called_chosen_elsewhere(contents) -> None:
    assert "not chosen on these cases" in answer_claim(contents)[38].text
    figures = contents.figures._replace(settings={**contents.figures.settings, "thresholds": 0.37})
    assert "not known" in answer_claim(contents._replace(figures=figures))[38].text
