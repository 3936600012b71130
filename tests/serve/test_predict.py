"""The engine and the batching, with the model that answers red / 255."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from roadseg_serve import artefact
from roadseg_serve.errors import ArtefactError
from roadseg_serve.predict import Engine, predict_all, quantise


@pytest.fixture(scope="module")
def engine(red_artefact: Path) -> Engine:
    return Engine(artefact.read(red_artefact).onnx_path, num_threads=1)


def test_quantise_rounds_to_nearest_halves_up() -> None:
    prob = np.array([[0, 1, 0.5, 0.4999, 1 / 255, 0.0019]], np.float32)
    assert quantise(prob).tolist() == [[0, 255, 128, 127, 1, 0]]


def test_engine_answers_red(engine: Engine) -> None:
    image_BHWC = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3), np.uint8)
    prob_BHW = engine.predict(image_BHWC)
    assert prob_BHW.dtype == np.uint8
    assert np.array_equal(prob_BHW, image_BHWC[..., 0])


def test_answers_outlive_the_next_call(engine: Engine) -> None:
    first = engine.predict(np.full((1, 16, 16, 3), 10, np.uint8))
    engine.predict(np.full((1, 16, 16, 3), 20, np.uint8))
    assert (first == 10).all()


def test_unequal_shapes_are_grouped_and_answers_keep_their_order(engine: Engine) -> None:
    shapes = [(16, 32, 3), (32, 16, 3), (16, 32, 3), (16, 16, 3), (32, 16, 3)]
    images_HWC = [np.full(shape, 10 * place, np.uint8) for place, shape in enumerate(shapes)]
    probs_HW = predict_all(engine, images_HWC)
    assert [(prob_HW.shape, prob_HW.max()) for prob_HW in probs_HW] == [
        ((16, 32), 0),
        ((32, 16), 10),
        ((16, 32), 20),
        ((16, 16), 30),
        ((32, 16), 40),
    ]


def test_a_program_that_cannot_be_loaded_is_a_bad_artefact(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no program")
    with pytest.raises(ArtefactError, match="publish the model again"):
        Engine(tmp_path / "model.onnx", num_threads=1)


def test_the_engine_reports_to_nobody() -> None:
    # OpenVINO sends usage data as soon as it is imported, if it finds this package; the lock leaves it out.
    assert importlib.util.find_spec("openvino_telemetry") is None
