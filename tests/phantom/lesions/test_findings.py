from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.phantom.patient import draw_patient

SETTINGS = PhantomSettings(seed=5, size=48, slices=8, prevalence=1.0, difficulty=1.0)


def test_findings_name_what_the_patient_has():
    for number in range(12):
        patient, scan = draw_patient(SETTINGS, number), make_head(SETTINGS, number)
        assert {part.name for part in (*patient.injuries, *patient.mimics)} <= scan.findings
        assert ("fluid_level" in scan.findings) == any(lesion.blood.pattern == "level" for lesion in patient.lesions)
        assert ("chronic" in scan.findings) == any(lesion.blood.holds_old for lesion in patient.lesions)
        assert scan.lesions == patient.lesions
        if "midline_shift" in scan.findings:
            assert "mass_effect" in scan.findings


def test_a_head_without_anything_has_no_findings_but_its_age():
    easy = PhantomSettings(seed=5, size=48, slices=8, prevalence=0.0, difficulty=0.0)
    for number in range(8):
        assert make_head(easy, number).findings <= {"atrophy"}


def test_every_finding_occurs_and_at_full_difficulty_most_heads_have_one():
    settings = PhantomSettings(seed=5, prevalence=0.0, difficulty=1.0)
    patients = [draw_patient(settings, number) for number in range(400)]
    named = [{part.name for part in (*patient.injuries, *patient.mimics)} for patient in patients]
    assert set().union(*named) == {"fracture", "scalp_swelling", "craniotomy", "infarct", "calcification"}
    assert sum(map(bool, named)) > 200
