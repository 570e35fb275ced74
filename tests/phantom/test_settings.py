import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.phantom import PhantomSettings


@pytest.mark.parametrize(
    "bad",
    [
        {"patients": 0},
        {"patients": 2.0},
        {"patients": True},
        {"slices": 3},
        {"size": 16},
        {"seed": -1},
        {"prevalence": 1.2},
        {"prevalence": float("nan")},
        {"noise": -1.0},
        {"difficulty": 1.01},
        {"masks": 1},
    ],
)
def test_a_value_out_of_range_is_refused_and_named(bad):
    with pytest.raises(ConfigError) as caught:
        PhantomSettings(**bad)
    assert next(iter(bad)) in caught.value.where


def test_the_defaults_are_allowed():
    assert PhantomSettings().prevalence == 0.41
