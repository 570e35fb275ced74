"""Predictor: applies a model with its preprocessing and calibration to a scan or a folder, and gives `ScanPrediction`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ich_lstm.errors import CheckpointError, IchLstmError, PredictionError, StudyError
from ich_lstm.inference.calibration import ModelCalibration
from ich_lstm.inference.calibration_file import read_calibration
from ich_lstm.inference.checkpoint import WeightsHash, find_model_folder, fitting, network_settings, read_model
from ich_lstm.inference.engines.choose import Engines
from ich_lstm.inference.engines.engine import Engine, EngineChoice
from ich_lstm.inference.forward import (
    EncodedScan,
    PreparedScan,
    TestTime,
    encode_scan,
    evaluation_mode,
    infer,
    predicted,
    prepare_scan,
)
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.models.execution.compiled import unwrapped
from ich_lstm.models.scan_model import ScanLogits, ScanModel
from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import FileRef, Study, choose_series, index_source, is_nifti, load_scan, read_nifti, short_uid
from ich_lstm.reading.series.nifti import in_archive
from ich_lstm.reading.series.slabs import SLAB_MM, THIN_MM
from ich_lstm.scan import Note, Scan, Slab
from ich_lstm.settings import built
from ich_lstm.unexpected import concerns_all, one_of_many

if TYPE_CHECKING:
    from ich_lstm.models.released.weights import ChannelOrder

SYNTHETIC = Note("synthetic_model", "the model was trained on synthetic heads only")


@dataclass(eq=False, kw_only=True)
class Predictor:
    """A model for prediction: the network and everything that a prediction needs, without the state of a training.

    Args:
        model: The network. Predictions run on its device, and leave its training or evaluation mode unchanged.
        preprocessing: How scans are prepared for the network. None if unknown; the model then cannot predict.
        calibration: Recalibration and operating points, which predictions show next to the probabilities; None for none.
        name: Name of the model in predictions.
        is_synthetic: Whether the model was trained on synthetic heads; if so, its predictions carry a warning.
        slice_mm: The usual slice spacing of the training scans in mm; None if unknown.
        test_time: Test-time augmentation, whose results are averaged. ``flip``: the scan and its mirror image; ``flip-reverse``:
            the scan and its mirror image, each read upwards and downwards; ``none``: the scan alone.
        hash: Cache of the hash of the network's weights.
        engines: What runs the encoder, see `EngineChoice`; by default the fastest that agrees with float32.

    Example:
        >>> predictor = Predictor.load("runs/rsna")  # doctest: +SKIP
        >>> for prediction in predictor.predict("export/"):  # doctest: +SKIP
        ...     print(prediction)
    """

    model: ScanModel
    preprocessing: Preprocessing | None
    name: str
    calibration: ModelCalibration | None = None
    is_synthetic: bool = False
    slice_mm: float | None = None
    test_time: TestTime = "none"
    hash: WeightsHash = field(default_factory=WeightsHash, repr=False)
    engines: Engines = field(default_factory=Engines, repr=False)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        channel_order: "ChannelOrder | None" = None,
        engine: EngineChoice = EngineChoice(),  # noqa: B008  (frozen)
    ) -> "Predictor":
        """Load a model as `ScanClassifier.load` does, without the parts that only training needs.

        Args:
            path: A run's folder, a model's folder, a ``.ckpt`` file, or released weights of another project.
            channel_order: Order of the windows, for Nguyen et al.'s released weights only: ``bgr`` (bone first) or ``rgb``
                (brain first). None for ``bgr``, the order of their loader. See docs/released.md.
            engine: What runs the encoder, and in which precision.

        Returns:
            The predictor, with its network in evaluation mode on the CPU.

        Raises:
            ConfigError: If a channel order is given for another model.
            CheckpointError: If there is no model, if its weights do not fit its settings, or if its calibration belongs to other
                weights.
        """
        path = Path(path)
        saved = read_model(path, channel_order)
        about = saved.about
        with fitting(path):
            model = ScanModel(network_settings(about))
            model.load_state_dict(saved.weights)
            stored = about["preprocessing"]
            preprocessing = None if stored is None else built(Preprocessing, stored, where="preprocessing")
        folder = find_model_folder(path)
        return cls(
            model=model.eval(),
            preprocessing=preprocessing,
            name=about["name"] or model.settings.encoder.backbone,
            calibration=None if folder is None else read_calibration(folder, saved.hash),
            is_synthetic=bool(about["is_synthetic"]),
            slice_mm=about["slice_mm"],
            test_time=about["settings"].get("test_time", "none"),
            engines=Engines(engine),
        )

    @property
    def slab_mm(self) -> float | None:
        """Thickness in mm of the slabs to which thin slices are averaged; None if the model was trained on thin slices."""
        return SLAB_MM if self.slice_mm is None or self.slice_mm > THIN_MM else None

    def weights_hash(self) -> str:
        """Hash that identifies the weights, 12 hexadecimal digits."""
        return self.hash.of(self.model)

    def known_preprocessing(self) -> Preprocessing:
        """How scans are prepared for this model.

        Raises:
            CheckpointError: If the model does not hold its preprocessing.
        """
        if self.preprocessing is None:
            raise CheckpointError(
                "no_preprocessing",
                where="this model",
                got="no preprocessing (size and crop), because it was not trained with a ScanDataModule",
                todo="Set model.preprocessing = Preprocessing(size=..., crop=...).",
            )
        return self.preprocessing

    def predict(
        self, source: Path | str | Scan, *, project_key: ProjectKey | None = None, coherent: bool = True
    ) -> Iterator[ScanPrediction]:
        """Predict a scan, or every study below a path, one after the other; each NIfTI file counts as a study.

        For each study, the non-contrast axial brain series is read. After the last prediction, an error lists the studies that
        could not be read.

        Args:
            source: A scan, a folder, a zip archive, or a single file (DICOM or NIfTI).
            project_key: Key for the ids in the predictions; None for the user's own key.
            coherent: Raise the probability of a scan to at least that of each slice, and the probability of "any" to at least
                that of each type, as the definitions of the labels require. False gives the probabilities of the network.

        Yields:
            One prediction per study.

        Raises:
            SourceError: If nothing can be read.
            StudyError: After the last prediction, if studies could not be read.
        """
        key = project_key or ProjectKey.open()
        if isinstance(source, Scan):
            yield self.predict_scan(source, key, coherent=coherent)
            return
        if is_nifti(source):
            yield self.predict_scan(read_nifti(source, slab_mm=self.slab_mm), key, coherent=coherent)
            return
        index = index_source(Path(source), must_have_ct=False)
        index.refuse_empty(Path(source))
        refused = []
        everything: list[Study | FileRef] = [*index.studies(), *index.nifti_files]
        for found in everything:
            name = f"study {short_uid(found.study_uid)}" if isinstance(found, Study) else str(found)
            try:
                with one_of_many(name):
                    if isinstance(found, Study):
                        scan = load_scan(choose_series(found).series, slab_mm=self.slab_mm)
                    elif found.member is not None:
                        raise in_archive(found)
                    else:
                        scan = read_nifti(found.path, slab_mm=self.slab_mm)
                    prediction = self.predict_scan(scan, key, coherent=coherent)
            except IchLstmError as error:
                if concerns_all(error):
                    raise
                refused.append(str(error))
                continue
            yield prediction
        if refused:
            raise StudyError(
                "refused",
                where=str(source),
                got=f"{len(refused)} studies without a prediction: " + " | ".join(refused),
                todo="Correct or remove them; all others have been predicted.",
            )

    def encode(self, scan: Scan) -> EncodedScan:
        """Preprocess a scan and run the encoder once; `predict_scan` and `explain` accept the result.

        On the first scan, an engine other than torch in float32 is compared with it; the result is stored for this machine.

        Args:
            scan: The scan.

        Raises:
            CheckpointError: If the model does not hold its preprocessing.
            ConfigError: If an engine that was asked for is not installed, cannot run this model, or differs too much from float32
                (``engine_disagrees``).
        """
        device = next(self.model.parameters()).device
        prepared = prepare_scan(scan, self.known_preprocessing(), device)
        with evaluation_mode(self.model):

            def measure(engine: Engine) -> float:
                return self._largest_difference(prepared, engine)

            engine = self.engines.of(self._encoder(), self.weights_hash(), device.type, measure).engine
            return encode_scan(self.model, prepared, None if engine.is_reference else engine.run)

    def _encoder(self) -> SliceEncoder:
        model = unwrapped(self.model)
        assert isinstance(model, ScanModel)
        return model.encoder

    def _largest_difference(self, prepared: PreparedScan, engine: Engine) -> float:
        """The largest difference in probability between an engine and torch in float32."""
        found = []
        for by in (None, engine.run):
            encoded = encode_scan(self.model, prepared, by)
            logits = self._logits(encoded)
            found.append(torch.cat(predicted(logits, encoded.lengths, coherent=False)))
        return float((found[0] - found[1]).abs().max())

    def _logits(self, encoded: EncodedScan) -> ScanLogits:
        with torch.no_grad():
            return infer(
                self.model,
                encoded.hu,
                encoded.lengths,
                encoded.positions_mm,
                test_time=self.test_time,
                features=encoded.features,
                by=encoded.by,
            )

    def predict_scan(self, scan: Scan | EncodedScan, project_key: ProjectKey, *, coherent: bool = True) -> ScanPrediction:
        """Predict one scan on the model's device. The model's training or evaluation mode does not change.

        Args:
            scan: The scan, or the result of `encode` for it.
            project_key: Key for the ids in the prediction.
            coherent: Raise the probability of a scan to at least that of each slice, and the probability of "any" to at least
                that of each type. False gives the probabilities of the network.

        Raises:
            CheckpointError: If the model does not hold its preprocessing.
            ConfigError: If the calibration was fitted to coherent probabilities and raw ones are asked for, or the reverse.
            PredictionError: ``not_finite`` if the network gives NaN or infinite values.
        """
        if self.calibration is not None:
            self.calibration.check_fits(coherent)
        encoded = self.encode(scan) if isinstance(scan, Scan) else scan
        scan = encoded.scan
        with evaluation_mode(self.model), torch.no_grad():
            logits = self._logits(encoded)
            if not all(bool(torch.isfinite(each).all()) for each in (logits.slice_logits, logits.scan_logits)):
                raise PredictionError(
                    "not_finite",
                    where=f"series {short_uid(scan.series_uid)}",
                    got="NaN or infinite values from the model",
                    expected="finite values",
                    todo="If other studies meet this too, the weights are damaged, or its numbers too large for bfloat16.",
                )
            found = predicted(logits, encoded.lengths, coherent=coherent)
        prediction = ScanPrediction(
            slice_probabilities=found.slices.cpu().numpy(),
            scan_probabilities=found.scans[0].cpu().numpy(),
            scan_id=project_key.hash_id(scan.identifier),
            slice_ids=tuple(project_key.hash_id(uid) for uid in scan.sop_uids),
            patient_id=project_key.hash_id(scan.patient_id) if scan.patient_id else "",
            positions_mm=scan.positions_mm,
            spacing_mm=scan.spacing_mm,
            tilt_degrees=scan.tilt_degrees,
            hu=scan.hu,
            flags=scan.flags + ((SYNTHETIC,) if self.is_synthetic else ()),
            repairs=scan.repairs,
            model_name=self.name,
            model_hash=self.weights_hash(),
            slabs=tuple(Slab(tuple(project_key.hash_id(uid) for uid in slab.ids), slab.positions_mm) for slab in scan.slabs),
        )
        return prediction if self.calibration is None else self.calibration.apply(prediction)
