import numpy as np
import pytest

from ich_lstm.phantom.anatomy.tissues import BLOOD
from ich_lstm.phantom.lesions.blood import Blood, draw_clot, draw_fresh, draw_hu, draw_subdural
from ich_lstm.phantom.scanner.slab import Slab

LINE = np.linspace(-40, 40, 81, dtype=np.float32).reshape(1, 81, 1)
BACKWARDS = Slab(np.zeros_like(LINE), LINE, np.zeros_like(LINE), 1.0)
"""One column of samples from front to back, 1 mm apart."""


@pytest.mark.parametrize("age", list(BLOOD))
def test_density_stays_in_the_range_of_its_age(age):
    rng = np.random.default_rng(0)
    for _ in range(100):
        hu = Blood(age, draw_hu(rng, age)).attenuation(BACKWARDS, rng.standard_normal(LINE.shape).astype(np.float32))
        assert BLOOD[age].low <= hu.min()
        assert hu.max() <= BLOOD[age].high


def test_cells_settle_behind_a_flat_level():
    hu = Blood("acute", 70.0, 20.0, "level", level_mm=5.0).attenuation(BACKWARDS, np.zeros_like(LINE)).ravel()
    assert np.all(hu[LINE.ravel() < 4] == 20)
    assert np.all(hu[LINE.ravel() > 6] == 70)


def test_a_mixture_holds_both_and_more_clots_towards_the_back():
    rng = np.random.default_rng(0)
    texture = rng.standard_normal((1, 81, 200)).astype(np.float32)
    wide = Slab(*(np.broadcast_to(part, texture.shape) for part in BACKWARDS.points), 1.0)
    hu = Blood("acute", 70.0, 15.0, "mixed", level_mm=0.0).attenuation(wide, texture)
    assert hu.min() < 20
    assert hu.max() > 65
    assert hu[:, :30].mean() + 10 < hu[:, -30:].mean()


def test_without_difficulty_all_blood_is_acute_and_even():
    rng = np.random.default_rng(0)
    for draw in (draw_fresh, draw_clot, draw_subdural):
        assert {(blood.age, blood.pattern) for blood in (draw(rng, 0.0, 0.0) for _ in range(50))} == {("acute", "even")}


def test_with_full_difficulty_a_subdural_may_have_any_age_and_pattern():
    rng = np.random.default_rng(0)
    drawn = [draw_subdural(rng, 1.0, 0.0) for _ in range(300)]
    assert {blood.age for blood in drawn} == {"hyperacute", "acute", "subacute", "chronic"}
    assert {blood.pattern for blood in drawn} == {"even", "level", "mixed"}
    assert any(blood.holds_old and blood.age == "acute" for blood in drawn)
