"""Which engine predicts: the fastest that agrees with torch in float32, checked once and stored."""

import copy
import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import make_classifier, make_scan

from ich_lstm.errors import ConfigError
from ich_lstm.inference.engines import choose, openvino
from ich_lstm.inference.engines.choose import LARGEST_DIFFERENCE, Engines
from ich_lstm.inference.engines.engine import Engine, EngineChoice
from ich_lstm.inference.predictor import Predictor
from ich_lstm.privacy import ProjectKey

FLOAT32 = EngineChoice(engine="torch", precision="float32")
HALF = EngineChoice(engine="torch", precision="bfloat16")


@pytest.fixture(autouse=True)
def stored_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of stored checks, empty at first."""
    path = tmp_path / "cache/engines.json"
    monkeypatch.setattr(choose, "_file", lambda: path)
    return path


@pytest.fixture
def cpu_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda device_type: device_type == "cpu")


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_openvino", lambda: False)


def predictor(choice: EngineChoice = EngineChoice(), **changes) -> Predictor:  # noqa: B008
    return replace(make_classifier(**changes).predictor, engines=Engines(choice))


def used(model: Predictor) -> tuple[str, str]:
    assert model.engines.chosen is not None
    return model.engines.chosen.engine[:2]


@pytest.mark.usefixtures("cpu_with_bfloat16", "without_openvino")
class TestByDefault:
    @pytest.mark.parametrize("test_time", ["none", "flip-reverse"])
    def test_bfloat16_within_the_bound(self, test_time: str, project_key: ProjectKey, stored_checks: Path) -> None:
        scan = make_scan()
        fast, exact = predictor(test_time=test_time), predictor(FLOAT32, test_time=test_time)
        found, expected = (each.predict_scan(scan, project_key, coherent=False) for each in (fast, exact))
        assert used(fast) == ("torch", "bfloat16")
        assert used(exact) == ("torch", "float32")
        differences = [
            np.abs(found.slice_probabilities - expected.slice_probabilities).max(),
            np.abs(found.scan_probabilities - expected.scan_probabilities).max(),
        ]
        assert fast.engines.chosen is not None
        assert fast.engines.chosen.difference == pytest.approx(max(differences), abs=1e-12)
        assert 0 < max(differences) <= LARGEST_DIFFERENCE

    def test_the_check_is_made_once_per_model(self, monkeypatch: pytest.MonkeyPatch, stored_checks: Path) -> None:
        checks = []
        real = Predictor._largest_difference
        monkeypatch.setattr(
            Predictor,
            "_largest_difference",
            lambda self, *given: checks.append(1) or real(self, *given),  # type: ignore[func-returns-value]
        )
        for _ in range(2):  # the second one is as a second command
            model = predictor()
            for _ in range(2):
                model.encode(make_scan())
        assert len(checks) == 1
        assert len(json.loads(stored_checks.read_text())) == 1
        predictor(seed=1).encode(make_scan())  # other weights
        assert len(checks) == 2

    def test_without_a_place_to_store_the_check(self, stored_checks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stored_checks.parent.write_text("a file where the folder should be")
        model = predictor()
        model.encode(make_scan())
        assert used(model) == ("torch", "bfloat16")

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"a": "b"}'])
    def test_a_damaged_file_of_checks_is_replaced(self, content: str, stored_checks: Path) -> None:
        stored_checks.parent.mkdir()
        stored_checks.write_text(content)
        predictor().encode(make_scan())
        assert len(json.loads(stored_checks.read_text())) >= 1

    def test_one_that_disagrees_is_not_used(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(choose, "torch_engine", _wrong)
        model = predictor()
        model.encode(make_scan())
        assert used(model) == ("torch", "float32")
        assert "torch in bfloat16, whose probabilities differ" in caplog.text

    def test_copies_and_pickles_choose_anew(self) -> None:
        """What is chosen holds the network or a compiled form of it, and a training in several processes pickles its model."""
        classifier = make_classifier()
        classifier.predictor.encode(make_scan())
        assert classifier.engines.chosen is not None
        for again in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
            assert again.engines.chosen is None
            again.predictor.encode(make_scan())
            assert again.engines.chosen.engine.name == "torch"

    def test_changed_weights_are_checked_again(self) -> None:
        model = predictor()
        model.encode(make_scan())
        first = model.engines.chosen
        with torch.no_grad():
            next(model.model.parameters()).mul_(1.5)
        model.encode(make_scan())
        assert model.engines.chosen is not first


def _wrong(encoder: torch.nn.Module, precision: str) -> Engine:
    """An engine whose features are wrong in bfloat16."""
    return Engine("torch", precision, lambda x: encoder(x) + (5.0 if precision == "bfloat16" else 0.0))  # type: ignore[arg-type]


@pytest.mark.usefixtures("without_openvino")
def test_float32_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda device_type: False)
    model = predictor()
    model.encode(make_scan())
    assert used(model) == ("torch", "float32")


@pytest.mark.usefixtures("without_openvino", "cpu_with_bfloat16")
def test_a_scan_of_numbers_that_are_not_finite_decides_for_itself_alone(
    stored_checks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "_largest_difference", lambda *given: float("nan"))
    model = predictor()
    model.encode(make_scan())
    assert used(model) == ("torch", "float32")
    assert not stored_checks.exists()


class TestAskedFor:
    def test_one_that_disagrees_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choose, "torch_engine", _wrong)
        with pytest.raises(ConfigError, match=r"engine_disagrees.*torch in bfloat16.*0\.005"):
            predictor(HALF).encode(make_scan())

    def test_openvino_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openvino, "has_openvino", lambda: False)
        with pytest.raises(ConfigError, match=r"no_openvino.*pip install"):
            predictor(EngineChoice(engine="openvino")).encode(make_scan())

    @pytest.mark.parametrize("wrong", [{"engine": "tensorrt"}, {"precision": "int4"}])
    def test_unknown(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match=r"unknown_(engine|precision)"):
            EngineChoice(**wrong)  # type: ignore[arg-type]

    def test_openvino_needs_a_cpu(self) -> None:
        engines = Engines(EngineChoice(engine="openvino"))
        with pytest.raises(ConfigError, match="engine_needs_cpu"):
            engines.of(make_classifier().model.encoder, "0", "cuda", lambda engine: 0.0)  # type: ignore[arg-type]


@pytest.mark.skipif(not openvino.has_openvino(), reason="openvino is not installed")
class TestOpenVINO:
    @pytest.mark.parametrize("slices", [1, 7, 8, 20])
    @pytest.mark.parametrize("neighbours", [0, 1])
    def test_any_number_of_slices(self, slices: int, neighbours: int, project_key: ProjectKey) -> None:
        hu = np.random.default_rng(1).integers(-100, 200, (slices, 32, 32)).astype(np.int16)
        changes = {"encoder": {"adjacent_slices": neighbours}, "test_time": "flip-reverse"}
        scan = make_scan(hu)
        choices = (EngineChoice(engine="openvino", precision="float32"), FLOAT32)
        found, expected = (predictor(choice, **changes).predict_scan(scan, project_key) for choice in choices)
        np.testing.assert_allclose(found.slice_probabilities, expected.slice_probabilities, atol=1e-5)
        np.testing.assert_allclose(found.scan_probabilities, expected.scan_probabilities, atol=1e-5)

    def test_it_is_taken_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choose, "has_openvino", openvino.has_openvino)
        model = predictor()
        model.encode(make_scan())
        assert used(model)[0] == "openvino"

    def test_one_that_cannot_run_the_model(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        def fail(*_: object) -> None:
            raise NotImplementedError("an operator")

        monkeypatch.setattr(torch.export, "export", fail)
        monkeypatch.setattr(choose, "has_openvino", openvino.has_openvino)
        model = predictor()
        model.encode(make_scan())
        assert used(model)[0] == "torch"
        assert "cannot run this model: an operator" in caplog.text
        with pytest.raises(ConfigError, match=r"engine_cannot_run.*an operator"):
            predictor(EngineChoice(engine="openvino")).encode(make_scan())

    def test_no_telemetry(self) -> None:
        predictor(EngineChoice(engine="openvino")).encode(make_scan())
        assert sys.modules.get("openvino_telemetry") is None
