"""Heat maps and contributions, beside plain autograd on the whole network."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torch
from fabricated import TINY, make_classifier, make_scan

import ich_lstm
from ich_lstm import ScanClassifier, explain
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.inference import explain as explain_module
from ich_lstm.labels import LABELS
from ich_lstm.models.heads.recurrent import RecurrentHead
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, network_box, preprocess_scan
from ich_lstm.scan import Scan
from ich_lstm.settings import merged

ANY, SUBDURAL = LABELS.index("any"), LABELS.index("subdural")

SMALL = merged(TINY, {"encoder": {"backbone": "test_byobnet"}})


def noisy_scan(slices: int, seed: int = 0, size: int = 64) -> Scan:
    """Coarse noise, from slice to slice around another mean."""
    random = np.random.default_rng(seed)
    hu = (
        random.normal(random.normal(40, 60, (slices, 1, 1)), 60, (slices, 8, 8))
        .repeat(size // 8, axis=1)
        .repeat(size // 8, axis=2)
    )
    return make_scan(hu.clip(-1000, 3000).astype(np.int16))


def lively(seed: int = 0, **changes) -> ScanClassifier:
    """A small classifier in evaluation mode whose every parameter plays a part."""
    classifier = make_classifier(seed, settings=SMALL, **({"size": 64} | changes))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in classifier.model.named_parameters():
        if not name.startswith("encoder."):
            parameter.data.normal_(std=0.3, generator=generator)
        elif parameter.ndim == 1:  # normalizations, of which some begin at 0
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return classifier.eval()


def plain_maps(classifier: ScanClassifier, scan: Scan, module: str, targets: dict[int, list[int]], label: int) -> np.ndarray:
    """HiResCAM by the whole network, forwards and backwards, once for every target; ``(n, r, c)``."""
    model = copy.deepcopy(classifier.model)
    kept = []
    model.encoder.network.get_submodule(module).register_forward_hook(lambda _, __, out: kept.append(out))
    hu = torch.from_numpy(preprocess_scan(scan, classifier.preprocessing))
    positions = torch.tensor(scan.positions_mm, dtype=torch.float32)
    logits = model(hu, torch.tensor([len(scan)]), positions).slice_logits
    (activations,) = kept
    rows = []
    for i in range(len(scan)):
        gradient = sum(torch.autograd.grad(logits[t, label], activations, retain_graph=True)[0][i] for t in targets[i])
        rows.append((gradient * activations[i]).sum(dim=0).relu())
    return torch.stack(rows).detach().numpy()


def with_neighbours(slices: int, neighbours: int) -> dict[int, list[int]]:
    return {i: [t for t in range(i - neighbours, i + neighbours + 1) if 0 <= t < slices] for i in range(slices)}


class TestMaps:
    @pytest.mark.parametrize(
        ("changes", "stride", "module"),
        [
            ({}, 32, "final_conv"),
            ({}, None, "stages.2"),
            ({"encoder": {"global_pool": "catavgmax"}, "head": {"positions": "relative"}}, 32, "final_conv"),
            ({"encoder": {"adjacent_slices": 1, "global_pool": "max"}, "head": {"class_path": "GRU"}}, 32, "final_conv"),
            ({"head": {"class_path": "NoHead"}, "coherent_any": True}, 32, "final_conv"),
            ({"max_slices": 3}, 32, "final_conv"),
            ({"encoder": {"backbone": "test_convnext", "global_pool": "late"}}, None, "head.norm"),
            ({"encoder": {"backbone": "test_resnet", "checkpoint_blocks": True}}, 16, "layer3"),
            ({"head": {"encoder_probabilities": True, "projection": 6, "num_layers": 2, "layer_dropout": 0.5}}, 32, "final_conv"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else None,
    )
    def test_they_are_those_of_plain_autograd(self, changes: dict, stride: int | None, module: str) -> None:
        classifier, scan = lively(**changes), noisy_scan(5)
        neighbours = 0 if changes else 1
        maps = explain(classifier, scan, labels=["any", "subdural"], stride=stride, neighbours=neighbours).maps
        targets = with_neighbours(5, neighbours)
        classifier.model.encoder.network.set_grad_checkpointing(False)  # hooks of the reference are not called otherwise
        both = {k: plain_maps(classifier, scan, module, targets, k) for k in (ANY, SUBDURAL)}
        assert any((expected > 0).any() for expected in both.values())
        for k, expected in both.items():
            np.testing.assert_allclose(maps[:, k], expected, rtol=1e-4, atol=1e-5 * expected.max())

    def test_behind_an_average_they_are_grad_cam(self) -> None:
        """Selvaraju et al.'s weights: the mean of the gradient over the map, for each channel."""
        classifier, scan, kept = lively(), noisy_scan(3), []
        maps = explain(classifier, scan, labels=["any"], stride=32, neighbours=0).maps[:, ANY]
        classifier.model.encoder.network.final_conv.register_forward_hook(lambda _, __, out: kept.append(out))
        hu = torch.from_numpy(preprocess_scan(scan, classifier.preprocessing))
        logits = classifier.model(hu, torch.tensor([3]), torch.tensor(scan.positions_mm).float()).slice_logits
        (gradient,) = torch.autograd.grad(logits[2, ANY], kept[0])
        weights = gradient[2].mean(dim=(1, 2))
        expected = torch.einsum("c,chw->hw", weights, kept[0][2]).relu().detach()
        np.testing.assert_allclose(maps[2], expected, rtol=1e-4, atol=1e-6)

    def test_of_channels_last_too(self) -> None:
        swin: dict = {"patch_size": 4, "window_size": 2, "embed_dim": 128, "depths": (1, 1), "num_heads": (1, 1), "img_size": 32}
        classifier = lively(size=32)
        network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, pretrained=False, **swin)
        classifier.model.encoder.network = network.eval()
        scan, kept = noisy_scan(3, size=32), []
        maps = explain(classifier, scan, neighbours=0).maps
        network.norm.register_forward_hook(lambda _, __, out: kept.append(out))
        hu = torch.from_numpy(preprocess_scan(scan, classifier.preprocessing))
        logits = classifier.model(hu, torch.tensor([3]), torch.tensor(scan.positions_mm).float()).slice_logits
        (gradient,) = torch.autograd.grad(logits[1, ANY], kept[0])
        expected = (gradient[1] * kept[0][1]).sum(dim=2).relu().detach()
        np.testing.assert_allclose(maps[1, ANY], expected, rtol=1e-4, atol=1e-5 * float(expected.max()))

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        classifier, scan = lively(), noisy_scan(7)
        whole = explain(classifier, scan)
        monkeypatch.setitem(explain_module.INFERENCE_SLICES_PER_CHUNK, "cpu", 2)
        monkeypatch.setattr(explain_module, "HEAD_SLICES", 15)
        parts = explain(classifier, scan)
        np.testing.assert_allclose(parts.maps, whole.maps, rtol=1e-4, atol=1e-6 * whole.maps.max())
        np.testing.assert_allclose(parts.contributions, whole.contributions, rtol=1e-4, atol=1e-6)

    def test_targets_far_apart_share_a_pass_at_little_cost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        classifier, scan = lively(size=32), noisy_scan(70, size=32)
        shared = explain(classifier, scan, labels=["any"]).maps[:, ANY]
        monkeypatch.setattr(explain_module, "TARGET_DISTANCE", len(scan))
        exact = explain(classifier, scan, labels=["any"]).maps[:, ANY]
        np.testing.assert_allclose(shared, exact, atol=1e-3 * exact.max())
        assert not np.array_equal(shared, exact)

    def test_a_stride_of_half_the_pixels_has_twice_the_cells(self) -> None:
        classifier, scan = lively(), noisy_scan(2)
        assert explain(classifier, scan, stride=32).maps.shape == (2, 6, 2, 2)
        assert explain(classifier, scan, stride=16).maps.shape == (2, 6, 4, 4)
        assert explain(classifier, scan).maps.shape == (2, 6, 4, 4)

    def test_only_wanted_labels_are_explained_in_the_order_of_labels(self) -> None:
        classifier, scan = lively(), noisy_scan(3)
        some, every = explain(classifier, scan, labels=["any", "epidural"]), explain(classifier, scan)
        assert some.labels == ("epidural", "any")
        assert every.labels == LABELS
        assert np.isnan(some.maps[:, 1:5]).all()
        assert np.isnan(some.contributions[:, 1:5]).all()
        np.testing.assert_allclose(some.maps[:, [0, 5]], every.maps[:, [0, 5]], rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(some.contributions[:, [0, 5]], every.contributions[:, [0, 5]], rtol=1e-5, atol=1e-9)

    def test_they_point_at_what_is_bright(self) -> None:
        """An encoder of hand-made weights that adds up how bright the subdural window is, in each cell by itself."""
        classifier = make_classifier(size=64, settings=SMALL, head={"class_path": "NoHead"}, pooling={"kind": "max"})
        classifier.preprocessing = Preprocessing(size=64, crop="head")
        network = torch.nn.Conv2d(3, 2, 8, stride=8)
        network.weight.data.fill_(1 / 64)
        network.bias.data.zero_()
        pooled = torch.nn.Sequential(network, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        pooled.feature_info = [{"module": "1", "reduction": 8, "num_chs": 2}]
        classifier.model.encoder.network = pooled
        classifier.model.encoder_classifier = torch.nn.Linear(2, 6)
        torch.nn.init.ones_(classifier.model.encoder_classifier.weight)
        hu = np.full((3, 100, 90), -1000, np.int16)
        hu[:, 20:84, 14:78] = 20
        hu[1, 64:74, 20:30] = 90
        scan = make_scan(hu)
        explanation = explain(classifier, scan, labels=["subdural"])
        y, x = np.unravel_index(explanation.on_slice(1, "subdural", hu.shape[1:]).argmax(), hu.shape[1:])
        assert abs(y - 68.5) <= 4
        assert abs(x - 24.5) <= 4
        assert explanation.maps[1, SUBDURAL].max() > 1.5 * explanation.maps[0, SUBDURAL].max()
        assert explanation.contributions[:, SUBDURAL].argmax() == 1

    def test_the_box_is_where_the_network_looks(self) -> None:
        hu = np.full((4, 96, 80), -1000, np.int16)
        hu[:, 10:60, 30:70] = 40
        scan = make_scan(hu)
        explanation = explain(lively(), scan, labels=["any"])
        assert explanation.box == network_box(scan, Preprocessing(size=64))
        top, left, height, width = explanation.box
        assert top <= 10 < 60 <= top + height
        assert left <= 30 < 70 <= left + width


class TestContributions:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"pooling": {"kind": "noisy-or"}, "head": {"class_path": "GRU"}},
            {"pooling": {"kind": "max", "encoder_residual": True}},
            {"head": {"class_path": "NoHead"}},
        ],
        ids=str,
    )
    def test_they_add_up_to_the_scans_logit_less_the_baselines(self, changes: dict) -> None:
        classifier, scan = lively(**changes), noisy_scan(6)
        model, lengths = classifier.model, torch.tensor([6])
        positions = torch.tensor(scan.positions_mm, dtype=torch.float32)
        # Slices that differ more than noise does to an untrained encoder, so that the head is far from linear between them.
        features = torch.randn(6, model.encoder.out_features, generator=torch.Generator().manual_seed(0))
        model.encode = lambda hu, lengths, **_: features
        contributions = explain(classifier, scan).contributions
        with torch.no_grad():
            logits = model.head(features, lengths, positions)
            least = int(logits.slice_logits[:, ANY].argmin())
            nothing = model.head(features[[least] * 6], lengths, positions)
        difference = (logits.scan_logits - nothing.scan_logits)[0].numpy()
        assert np.abs(difference).max() > 0.1
        np.testing.assert_allclose(contributions.sum(axis=0), difference, rtol=0.03, atol=0.03 * np.abs(difference).max())
        assert (contributions[least] == 0).all()

    def test_a_single_slice_adds_nothing_to_itself(self) -> None:
        assert (explain(lively(), noisy_scan(1)).contributions == 0).all()


@pytest.fixture
def in_training() -> ScanClassifier:
    """In training mode, partly frozen, with gradients, dropout and batch statistics at work."""
    classifier = lively(
        encoder={"dropout": 0.5, "checkpoint_blocks": True},
        head={"input_dropout": 0.5, "recurrent_dropout": 0.5, "output_dropout": 0.5},
    ).train()
    classifier.model.encoder.network.stages[0].requires_grad_(False).eval()
    for parameter in classifier.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    return classifier


def state_of(classifier: ScanClassifier) -> list:
    """All that a caller could see changed."""
    modules = [
        (name, part.training, len(part._forward_hooks), getattr(part, "grad_checkpointing", None))
        for name, part in classifier.named_modules()
    ]
    parameters = [
        (name, p.requires_grad, p.grad is None or bool((p.grad == 1).all())) for name, p in classifier.named_parameters()
    ]
    return [modules, parameters, classifier.weights_hash(), torch.get_rng_state().tolist(), torch.backends.cudnn.enabled]


class TestTheModelIsLeftAsItWas:
    def test_in_training(self, in_training: ScanClassifier) -> None:
        before = state_of(in_training)
        assert any(checkpointed for *_, checkpointed in before[0])
        explain(in_training, noisy_scan(3))
        assert state_of(in_training) == before
        assert torch.is_grad_enabled()

    def test_after_an_error(self, in_training: ScanClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
        before = state_of(in_training)

        def fail(*_: object) -> None:
            raise RuntimeError("in the middle of a map")

        monkeypatch.setattr(torch, "einsum", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            explain(in_training, noisy_scan(3))
        assert state_of(in_training) == before
        assert torch.is_grad_enabled()

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_its_mode_and_the_callers_do_not_matter(self, in_training: ScanClassifier, mode: type) -> None:
        scan = noisy_scan(3)
        with mode():
            first = explain(in_training, scan)
        second = explain(in_training.eval(), scan)
        np.testing.assert_array_equal(first.maps, second.maps)
        np.testing.assert_array_equal(first.contributions, second.contributions)

    def test_weights_made_under_inference_mode(self) -> None:
        with torch.inference_mode():
            made = lively()
        scan = noisy_scan(3)
        np.testing.assert_array_equal(explain(made, scan).maps, explain(lively(), scan).maps)

    def test_hooks_of_compiled_networks_are_called(self) -> None:
        classifier, scan = lively(), noisy_scan(3)
        expected = explain(classifier, scan)

        def compiled(*_: object) -> None:
            raise AssertionError("the compiled network was called, and knows nothing of hooks")

        classifier.model.encoder.network._compiled_call_impl = compiled
        with pytest.raises(AssertionError):
            classifier.model.encoder(torch.zeros(1, 3, 64, 64))
        # Features come from the compiled network as in prediction; only here there is none.
        classifier.model.encode = lambda hu, lengths, **_: ich_lstm.ScanModel.encode(lively().model, hu, lengths)  # type: ignore[assignment]
        np.testing.assert_array_equal(explain(classifier, scan).maps, expected.maps)
        assert classifier.model.encoder.network._compiled_call_impl is compiled


class TestCudnn:
    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, bool]]]:
        """Whether cuDNN was allowed, and gradients were recorded, whenever the recurrent head ran."""
        seen = []
        run = RecurrentHead.forward

        def watched(self: RecurrentHead, *arguments: object) -> torch.Tensor:
            y = run(self, *arguments)
            seen.append((torch.backends.cudnn.enabled, y.requires_grad))
            return y

        monkeypatch.setattr(RecurrentHead, "forward", watched)
        return seen

    def test_its_lstm_which_has_no_backward_in_evaluation_is_not_used(self, seen: list[tuple[bool, bool]]) -> None:
        explain(lively(), noisy_scan(3))
        assert (False, True) in seen
        assert (True, True) not in seen
        assert torch.backends.cudnn.enabled


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ({"labels": ["subdural", "stroke"]}, "unknown_label"),
            ({"labels": []}, "unknown_label"),
            ({"stride": 7}, "unknown_stride"),
            ({"neighbours": -1}, "neighbours_out_of_range"),
        ],
    )
    def test_of_settings(self, options: dict, code: str) -> None:
        with pytest.raises(ConfigError) as caught:
            explain(lively(), noisy_scan(2), **options)
        assert caught.value.code == code

    @pytest.mark.parametrize("changes", [{"encoder": {"backbone": "test_vit"}, "size": 160}], ids=str)
    def test_of_a_backbone_without_maps(self, changes: dict) -> None:
        with pytest.raises(ConfigError) as caught:
            explain(lively(**changes), noisy_scan(1))
        assert caught.value.code == "no_map"

    def test_of_a_model_that_knows_no_preprocessing(self) -> None:
        classifier = lively()
        classifier.preprocessing = None
        with pytest.raises(CheckpointError) as caught:
            explain(classifier, noisy_scan(1))
        assert caught.value.code == "no_preprocessing"
