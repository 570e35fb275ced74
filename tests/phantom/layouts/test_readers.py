import numpy as np
import pytest

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom.layouts.readers import BLEEDINGS, FINDINGS, READERS, SKILLS, Skill, read_scan, reads_lines, scan_truth

SCANS = 3000

NOTHING = dict.fromkeys((*SKILLS, "ICH", "Fracture"), False)


def answers(truth: dict[str, bool]) -> dict[str, np.ndarray]:
    """What the readers say of many scans that are alike: of each finding, bool ``(scans, 3)``."""
    read = [read_scan(truth, 7, patient) for patient in range(SCANS)]
    return {name: np.array([[answer[f"{reader}:{name}"] for reader in READERS] for answer in read]) for name in FINDINGS}


@pytest.fixture(scope="module")
def present() -> dict[str, np.ndarray]:
    """Of scans that hold everything."""
    return answers(dict.fromkeys(NOTHING, True))


@pytest.fixture(scope="module")
def absent() -> dict[str, np.ndarray]:
    """Of scans that hold nothing."""
    return answers(NOTHING)


def fleiss_kappa(votes: np.ndarray) -> float:
    """Fleiss 1971, for two categories; votes bool ``(scans, readers)``."""
    readers = votes.shape[1]
    positive = votes.sum(axis=1)
    agreeing = (positive * (positive - 1) + (readers - positive) * (readers - positive - 1)) / (readers * (readers - 1))
    share = votes.mean()
    by_chance = share**2 + (1 - share) ** 2
    return float((agreeing.mean() - by_chance) / (1 - by_chance))


class TestSkill:
    @pytest.mark.parametrize("name", [*BLEEDINGS, "MassEffect", "MidlineShift", "CalvarialFracture"])
    def test_sensitivity_and_specificity_are_those_asked_for(self, name, present, absent):
        # Four standard errors of a share of 3000.
        assert present[name].mean(axis=0) == pytest.approx(SKILLS[name].sensitivity, abs=0.034)
        assert 1 - absent[name].mean(axis=0) == pytest.approx(SKILLS[name].specificity, abs=0.018)

    def test_readers_err_independently(self, present):
        assert abs(np.corrcoef(present["SDH"].T.astype(float))[np.triu_indices(3, 1)]).max() < 0.08

    @pytest.mark.parametrize(
        ("name", "positives", "kappa"),
        [("IPH", 134, 0.77), ("IVH", 28, 0.69), ("SDH", 53, 0.54), ("EDH", 13, 0.61), ("SAH", 60, 0.65)],
    )
    def test_agreement_is_that_of_cq500(self, name, positives, kappa, present, absent):
        count = positives * SCANS // 491
        votes = np.concatenate([present[name][:count], absent[name][count:]])
        assert fleiss_kappa(votes) == pytest.approx(kappa, abs=0.08)

    def test_perfect_readers_say_the_truth(self):
        truth = NOTHING | {"ICH": True, "SDH": True, "ChronicBleed": True, "BleedLocation-Left": True, "MidlineShift": True}
        perfect = dict.fromkeys(SKILLS, Skill(1.0, 1.0))
        read = read_scan(truth, 1, 0, perfect)
        assert all(read[f"{reader}:{name}"] == truth[name] for reader in READERS for name in FINDINGS)

    def test_the_errors_are_a_function_of_the_seed(self):
        truth = NOTHING | {"SDH": True, "ICH": True}
        assert [read_scan(truth, 1, n) for n in range(40)] == [read_scan(truth, 1, n) for n in range(40)]
        assert [read_scan(truth, 1, n) for n in range(40)] != [read_scan(truth, 2, n) for n in range(40)]


class TestOneReader:
    def test_does_not_contradict_itself(self):
        clumsy = dict.fromkeys(SKILLS, Skill(0.6, 0.6))
        for patient in range(200):
            read = read_scan(NOTHING | {"SAH": True, "ICH": True}, 3, patient, clumsy)
            for reader in READERS:
                said = {name: read[f"{reader}:{name}"] for name in FINDINGS}
                assert said["ICH"] == any(said[name] for name in BLEEDINGS)
                assert said["Fracture"] == (said["CalvarialFracture"] or said["OtherFracture"])
                assert said["ICH"] or not (said["ChronicBleed"] or said["BleedLocation-Left"] or said["BleedLocation-Right"])


def test_the_columns_are_those_of_cq500():
    (header, row) = reads_lines(["CQ500-CT-0"], ["B1"], [read_scan(NOTHING, 1, 0)])
    columns = "ICH,IPH,IVH,SDH,EDH,SAH,BleedLocation-Left,BleedLocation-Right,ChronicBleed,Fracture,CalvarialFracture,"
    columns += "OtherFracture,MassEffect,MidlineShift"
    assert header.split(",") == ["name", "Category", *(f"{reader}:{name}" for reader in READERS for name in columns.split(","))]
    assert row.split(",")[:2] == ["CQ500-CT-0", "B1"]
    assert set(row.split(",")[2:]) <= {"0", "1"}


def test_the_truth_is_that_of_the_head(bleeding_heads):
    sides = set()
    for head in bleeding_heads:
        truth = scan_truth(head)
        assert set(truth) == set(FINDINGS)
        for name, label in BLEEDINGS.items():
            assert truth[name] == bool(head.slice_labels[:, HEMORRHAGE_TYPES.index(label)].any())
        assert truth["ICH"] == any(truth[name] for name in BLEEDINGS)
        one_sided = {lesion.side for lesion in head.lesions}
        if truth["ICH"] and one_sided in ({1.0}, {-1.0}):
            side, other = ("Left", "Right") if one_sided == {1.0} else ("Right", "Left")
            assert truth[f"BleedLocation-{side}"]
            assert not truth[f"BleedLocation-{other}"]
            sides.add(side)
    assert sides == {"Left", "Right"}
