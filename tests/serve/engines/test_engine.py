"""The engines: each by a model that answers red / 255, all by the bundled model on drawn pictures, and the choice."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from docs.scenes import Scene, draw
from roadseg_serve.engines.batch import quantise
from roadseg_serve.engines.engine import (
    Engine,
    EngineName,
    choose,
    create_engine,
    predict_all,
    program_of,
    warm_up,
)
from roadseg_serve.errors import ArtefactError, StartError
from roadseg_serve.messages import UInt8Array
from roadseg_serve.models import artefact
from roadseg_serve.models.artefact import Artefact
from roadseg_serve.models.manifest import TORCH_FILE
from roadseg_serve.stages.preprocess import resize_and_pad

FLOAT_ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime", "torch")

WITH_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


class Red(torch.nn.Module):
    """The red model of conftest for PyTorch."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[..., 0].float() / 255


@pytest.fixture(scope="module")
def red(write_red_artefact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The red model with a program for every engine that computes in float32."""
    folder = write_red_artefact(tmp_path_factory.mktemp("engines") / "1")
    manifest = artefact.read(folder).manifest
    sides = dict.fromkeys(range(3), torch.export.Dim.AUTO)
    program = torch.export.export(Red(), (torch.zeros(2, 16, 32, 3, dtype=torch.uint8),), dynamic_shapes=(sides,))
    torch.export.save(program, folder / "model.pt2")
    return Artefact(folder, manifest)


@pytest.fixture(scope="module", params=FLOAT_ENGINES)
def engine(request: pytest.FixtureRequest, red: Artefact) -> Engine:
    return create_engine(request.param, red, num_threads=1)


@pytest.mark.parametrize(
    ("name", "gpu", "program"),
    [
        ("auto", False, "model.onnx"),
        ("auto", True, "model.pt2"),
        ("openvino", False, "model.onnx"),
        ("onnxruntime", False, "model.onnx"),
        ("openvino-int8", False, "model.int8.onnx"),
        ("torch", False, "model.pt2"),
    ],
)
def test_only_one_program_is_needed(name: Any, gpu: bool, program: str) -> None:
    assert program_of(name, gpu=gpu) == program


@pytest.fixture(scope="module")
def bundled() -> Artefact:
    return artefact.read(artefact.resolve("bundled:small"))


@pytest.fixture(scope="module")
def golden(bundled: Artefact) -> dict[str, UInt8Array]:
    """What the engines have to agree on: image_BHWC of streets and of noise, of many sizes and batches."""
    rng = np.random.default_rng(0)
    rule = bundled.manifest.input.size
    scenes = (Scene(), Scene(light=0.3, bend=3), Scene(wet=0.9, cars=((3.1, 12.0),)))
    return {
        "three streets": np.stack([resize_and_pad(draw(scene)[0], rule).input_HWC for scene in scenes]),
        "wide": resize_and_pad(draw(Scene(shadow=1), 375, 1242)[0], rule).input_HWC[None],
        "noise": rng.integers(0, 256, (1, 96, 160, 3), np.uint8),
        "one unit high": rng.integers(0, 256, (2, 16, 640, 3), np.uint8),
        "least": rng.integers(0, 256, (5, 16, 16, 3), np.uint8),
        "black": np.zeros((1, 64, 48, 3), np.uint8),
        "white": np.full((1, 48, 64, 3), 255, np.uint8),
    }


@pytest.fixture(scope="module")
def expected(bundled: Artefact, golden: dict[str, UInt8Array]) -> dict[str, UInt8Array]:
    """prob_BHW of the golden set by OpenVINO, picture by picture."""
    engine = create_engine("openvino", bundled, num_threads=1)
    return {
        name: np.concatenate([engine.predict(image_HWC[None]) for image_HWC in image_BHWC])
        for name, image_BHWC in golden.items()
    }


def test_torch_rounds_in_the_same_way() -> None:
    from roadseg_serve.engines import torch as torch_engine  # noqa: PLC0415  # only where an engine is made

    prob = np.linspace(0, 1, 4081, dtype=np.float32)  # 16 steps from level to level, halves among them
    assert torch_engine.quantise(torch.from_numpy(prob)).numpy().tolist() == quantise(prob).tolist()


def test_every_engine_answers_red(engine: Engine) -> None:
    image_BHWC = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3), np.uint8)
    prob_BHW = engine.predict(image_BHWC)
    assert prob_BHW.dtype == np.uint8
    assert np.array_equal(prob_BHW, image_BHWC[..., 0])


def test_answers_outlive_the_next_call(engine: Engine) -> None:
    first = engine.predict(np.full((1, 16, 16, 3), 10, np.uint8))
    engine.predict(np.full((1, 16, 16, 3), 20, np.uint8))
    assert (first == 10).all()


@pytest.mark.parametrize("name", FLOAT_ENGINES)
def test_engines_agree_within_a_level(
    name: EngineName, bundled: Artefact, golden: dict[str, UInt8Array], expected: dict[str, UInt8Array]
) -> None:
    engine = create_engine(name, bundled, num_threads=2)
    for what, image_BHWC in golden.items():
        found = engine.predict(image_BHWC).astype(int)
        assert np.abs(found - expected[what]).max() <= 1, what
    assert expected["three streets"].std() > 50  # there is something to disagree on


@WITH_GPU
def test_a_gpu_agrees_to_bfloat16s_precision(
    bundled: Artefact, golden: dict[str, UInt8Array], expected: dict[str, UInt8Array]
) -> None:
    engine = create_engine("torch", bundled, num_threads=1, gpu=True)
    for _ in ("captured", "replayed"):
        _assert_alike({what: engine.predict(image_BHWC) for what, image_BHWC in golden.items()}, expected)


def test_the_gpu_program_agrees_in_bfloat16_on_the_cpu(
    bundled: Artefact, golden: dict[str, UInt8Array], expected: dict[str, UInt8Array]
) -> None:
    """All of a GPU's way that needs none: the program is freed of its checks, traced for all shapes, and autocast."""
    from roadseg_serve.engines import torch as torch_engine  # noqa: PLC0415  # only where an engine is made

    trace = torch._dynamo.lookup_backend("aot_eager")
    graphs: list[torch.fx.GraphModule] = []

    def note(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return trace(graph, inputs)

    exported = torch_engine.without_checks(torch.export.load(bundled.folder / TORCH_FILE))
    program = torch.compile(exported.module(check_guards=False), dynamic=True, backend=note)
    usual = ("three streets", "wide", "noise")
    found: dict[str, UInt8Array] = {}
    for what in sorted(golden, key=lambda what: what not in usual):  # the usual ones first
        image_BHWC = torch.from_numpy(golden[what].copy())  # without gaps, as a GPU has it
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found[what] = torch_engine.quantise(program(image_BHWC)).numpy()
        # For several pictures and for one, as a replica is warmed up: a third would keep a user waiting.
        assert what not in usual or len(graphs) <= 2
    _assert_alike(found, expected)


@WITHOUT_GPU
def test_a_missing_gpu_is_an_error(bundled: Artefact) -> None:
    with pytest.raises(StartError, match="set num_gpus to 0"):
        create_engine("torch", bundled, num_threads=1, gpu=True)


@pytest.mark.parametrize(
    ("libraries", "gpu", "name"),
    [
        ({"torch", "openvino", "onnxruntime"}, True, "torch"),
        ({"torch", "openvino", "onnxruntime"}, False, "openvino"),
        ({"torch", "onnxruntime"}, False, "onnxruntime"),
        ({"openvino"}, True, "torch"),  # and that it is missing is told: the GPU would lie idle
    ],
)
def test_auto_takes_the_best_that_is_there(libraries: set[str], gpu: bool, name: str) -> None:
    assert choose(libraries, gpu=gpu) == name


def test_auto_without_any_engine_says_what_to_install() -> None:
    with pytest.raises(StartError, match=r"pip install 'roadseg\[serve\]'"):
        choose({"torch"}, gpu=False)


@pytest.mark.parametrize(
    ("name", "gpu", "library"),
    [
        ("openvino", False, "openvino"),
        ("openvino-int8", False, "openvino"),
        ("onnxruntime", False, "onnxruntime"),
        ("torch", False, "torch"),
        ("auto", True, "torch"),
    ],
)
def test_a_named_engine_is_never_replaced(
    name: EngineName | Literal["auto"], gpu: bool, library: str, bundled: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # how Python itself marks what cannot be imported
    with pytest.raises(StartError, match=rf"needs {library}, which is not installed; pip install"):
        create_engine(name, bundled, num_threads=1, gpu=gpu)


def test_int8_without_its_program_says_how_to_get_one(red: Artefact) -> None:
    with pytest.raises(ArtefactError, match=r"has no model.int8.onnx.*roadseg-train publish --int8"):
        create_engine("openvino-int8", red, num_threads=1)


@pytest.mark.parametrize("name", FLOAT_ENGINES)
def test_a_program_that_cannot_be_loaded_is_an_artefact_error(name: EngineName, red: Artefact, tmp_path: Path) -> None:
    for file in ("model.onnx", "model.pt2"):
        (tmp_path / file).write_bytes(b"no program")
    with pytest.raises(ArtefactError, match="publish the model again"):
        create_engine(name, Artefact(tmp_path, red.manifest), num_threads=1)


def test_no_telemetry_package_is_installed() -> None:
    # OpenVINO sends usage data as soon as it is imported, if it finds this package; the lock leaves it out.
    assert importlib.util.find_spec("openvino_telemetry") is None


def _assert_alike(found: dict[str, UInt8Array], expected: dict[str, UInt8Array]) -> None:
    """As close as bfloat16 is: by levels everywhere, and by the mask at the threshold 0.5 on the streets."""
    for what, prob_BHW in found.items():
        assert np.abs(prob_BHW.astype(int) - expected[what]).mean() <= 0.5, what
    masks = (found["three streets"] >= 128, expected["three streets"] >= 128)
    assert np.logical_and(*masks).sum() / np.logical_or(*masks).sum() >= 0.995


def test_unequal_shapes_are_grouped_and_answers_keep_their_order(red_artefact: Path) -> None:
    engine = create_engine("openvino", artefact.read(red_artefact), num_threads=1)
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

        def predict(self, image_BHWC: UInt8Array) -> UInt8Array:
            self.shapes.append(image_BHWC.shape)
            return image_BHWC[..., 0]

    recorder = Recorder()
    warm_up(recorder, artefact.read(red_artefact).manifest.input.size, (1, 2, 4))
    # The short side is 64; 4:3 of it is 85.3, padded to multiples of 16.
    assert recorder.shapes == [(1, 64, 96, 3), (2, 64, 96, 3), (4, 64, 96, 3)]
