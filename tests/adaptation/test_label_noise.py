"""How many labels are wrong, and which."""

import numpy as np
import pytest

from ich_lstm.adaptation.comparing.label_noise import estimate_noise


def noisy(share: float, seed: int = 0, cases: int = 600, prevalence: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which a share is turned round, probabilities that rank the truth well, and which labels are wrong."""
    random = np.random.default_rng(seed)
    truth = random.random(cases) < prevalence
    p = 1 / (1 + np.exp(-random.normal(np.where(truth, 3.0, -3.0), 1.2)))
    wrong = random.random(cases) < share
    return (truth ^ wrong).astype(np.float64), p, wrong


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
def test_the_share_of_wrong_labels(share: float) -> None:
    labels, p, wrong = noisy(share)
    noise = estimate_noise(labels, p)
    assert noise.wrong == pytest.approx(wrong.mean(), abs=0.03)
    found = noise.doubtful & wrong
    assert found.sum() >= 0.7 * wrong.sum()
    assert found.sum() >= 0.7 * noise.doubtful.sum()


def test_right_labels_of_a_good_model_are_not_suspected() -> None:
    labels, p, _ = noisy(0.0)
    assert estimate_noise(labels, p).wrong < 0.02


def test_one_class_is_unknown() -> None:
    noise = estimate_noise(np.array([0.0, 0, 0, np.nan]), np.array([0.1, 0.9, 0.2, 0.3]))
    assert np.isnan(noise.wrong)
    assert not noise.doubtful.any()
    assert noise.known == 3


def test_unknown_labels_are_never_doubtful() -> None:
    labels, p, _ = noisy(0.2)
    labels[:50] = np.nan
    assert not estimate_noise(labels, p).doubtful[:50].any()
