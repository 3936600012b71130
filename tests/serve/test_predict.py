"""The batching, with the model that answers red / 255."""

from pathlib import Path

import numpy as np
import pytest

from roadseg_serve import artefact
from roadseg_serve.engine import Engine, create_engine
from roadseg_serve.messages import Bytes
from roadseg_serve.predict import predict_all, warm_up


@pytest.fixture(scope="module")
def engine(red_artefact: Path) -> Engine:
    return create_engine("openvino", artefact.read(red_artefact), num_threads=1)


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


def test_warm_up_predicts_each_batch_size_at_the_size_of_a_usual_frame(red_artefact: Path) -> None:
    class Recorder:
        """An engine that notes what it is asked."""

        def __init__(self) -> None:
            self.shapes: list[tuple[int, ...]] = []

        def predict(self, image_BHWC: Bytes) -> Bytes:
            self.shapes.append(image_BHWC.shape)
            return image_BHWC[..., 0]

    recorder = Recorder()
    warm_up(recorder, artefact.read(red_artefact).manifest.input.size, (1, 2, 4))
    # The short side is 64; 4:3 of it is 85.3, padded to multiples of 16.
    assert recorder.shapes == [(1, 64, 96, 3), (2, 64, 96, 3), (4, 64, 96, 3)]
