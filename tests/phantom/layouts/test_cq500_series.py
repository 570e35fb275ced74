import pytest

from ich_lstm.phantom import PhantomSettings
from ich_lstm.phantom.layouts.cq500_series import plan_series


def names(number: int, thin_every: int = 10) -> list[str]:
    return [plan.name for plan in plan_series(number, thin_every, 0.625)]


def test_the_known_oddities_stand_where_the_original_has_them():
    assert names(24) == ["CT Thin Stnd", "CT BONE THIN"]
    assert names(336) == ["CT POST CONTRAST"]
    assert [name.removesuffix("-2") for name in names(172)[:2]] == [names(172)[0]] * 2
    assert names(172)[1].endswith("-2")
    assert [number for number in range(490) if plan_series(number, 10, 0.625)[0].neck_slices] == [45, 145, 245, 345, 445]


def test_descriptions_lack_what_the_export_added():
    first, second = plan_series(172, 10, 0.625)[:2]
    assert first.description == second.description == first.name.removeprefix("CT ")


def test_the_set_is_made_as_the_original():
    plans = [plan_series(number, 10, 0.625) for number in range(490)]
    assert 2.2 < sum(map(len, plans)) / len(plans) < 2.7  # 1,267 series of 490 patients
    assert all(len({plan.name for plan in study}) == len(study) for study in plans)
    without_plain = [number for number, study in enumerate(plans) if not any(plan.is_plain for plan in study)]
    assert without_plain == [36, 136, 236, 336, 436]
    thick = [any(plan.is_plain and (plan.thickness_mm or 5) > 2 for plan in study) for study in plans]
    assert 455 <= sum(thick) <= 475  # 463 of 490


@pytest.mark.parametrize("number", range(60))
def test_without_thin_series_every_study_has_thick_ones(number):
    assert all(plan.thickness_mm is None or plan.thickness_mm > 2 for plan in plan_series(number, 0, 0.625))


def test_a_fixed_number_of_slices_is_that_of_the_thick_series():
    three_mm = plan_series(4, 0, 0.625)[0]
    assert three_mm.thickness_mm == 3.0
    assert three_mm.reconstruction(PhantomSettings()).thickness_mm == 3.0
    assert three_mm.reconstruction(PhantomSettings(slices=10)).thickness_mm is None
    thin = plan_series(4, 10, 0.625)[0]
    assert thin.reconstruction(PhantomSettings(slices=10)).thickness_mm == 0.625
