"""How many labels are wrong, and which."""

from types import SimpleNamespace

import numpy as np
import pytest

from ich_lstm.adaptation.comparing.candidates import CANDIDATES
from ich_lstm.adaptation.comparing.cross_validation import OutOfFold
from ich_lstm.adaptation.comparing.label_noise import estimate_all, estimate_noise, judge_of_labels, treat_doubtful
from ich_lstm.adaptation.scans.site import Probabilities
from ich_lstm.labels import LABELS


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


def site_of(labels: np.ndarray) -> SimpleNamespace:
    """What the estimate needs of a site: scans of one slice, each of another patient."""
    columns = np.repeat(labels[:, None], len(LABELS), axis=1)
    count = len(labels)

    def labelled(slice_labels: np.ndarray, scan_labels: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(slice_labels=slice_labels, scan_labels=scan_labels)

    return SimpleNamespace(
        scans=range(count),
        patients=np.arange(count).astype(str),
        scan_index=np.arange(count),
        slice_labels=columns,
        scan_labels=columns.copy(),
        labelled=labelled,
    )


def judged(labels: np.ndarray, p: np.ndarray):
    """The estimates of all labels of a site whose model gives these probabilities."""
    columns = np.repeat(p[:, None], len(LABELS), axis=1)
    site = site_of(labels)
    unchanged = OutOfFold(np.arange(len(p))[None] % 5, {"nothing": [Probabilities(columns, columns)]})
    judge = judge_of_labels(unchanged, site, [each for each in CANDIDATES if each.trains == "nothing"])  # type: ignore[arg-type]
    return site, judge, estimate_all(site, judge)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_model_of_another_site_that_calls_too_many_scans_positive(share: float) -> None:
    """It ranks the scans well, but calls half of the negative ones as probable as the positive ones are on average."""
    labels, p, wrong = noisy(share, prevalence=0.1)
    odds = 4.0 + 0.8 * np.log(p / (1 - p))
    called = 1 / (1 + np.exp(-odds))
    site, judge, noise = judged(labels, called)
    assert noise[0].wrong == pytest.approx(wrong.mean(), abs=0.05)
    assert (noise[0].doubtful & ~wrong).sum() <= 0.3 * wrong.sum() + 0.03 * len(labels)
    if share:
        soft = treat_doubtful(site, noise, judge, "soft")  # type: ignore[arg-type]
        truth = (labels == 1) ^ wrong
        assert np.abs(soft.scan_labels[:, 0] - truth).mean() < 0.6 * wrong.mean()  # the labels themselves: 1.0


def test_labels_of_a_few_patients_are_not_judged() -> None:
    labels = np.zeros(100)
    labels[:4] = 1
    _, _, noise = judged(labels, np.where(labels == 1, 0.2, 0.1))
    assert all(np.isnan(each.wrong) and not each.doubtful.any() for each in noise)
