"""OpenVINO on the CPU: float32, or int8 if the program was published as int8."""

from pathlib import Path

import openvino

from roadseg_serve.engines.batch import quantise
from roadseg_serve.errors import ArtefactError
from roadseg_serve.messages import UInt8Array


class OpenVinoEngine:
    """Runs `model.onnx` or `model.int8.onnx` in OpenVINO, with `num_threads` CPU threads for each call."""

    def __init__(self, onnx_path: Path, *, num_threads: int) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": num_threads,
            "INFERENCE_PRECISION_HINT": "f32",  # no half precision, even on CPUs that have it
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            program = openvino.Core().compile_model(onnx_path, "CPU", settings)
        except RuntimeError as error:
            raise ArtefactError(f"OpenVINO cannot load {onnx_path}; publish the model again") from error
        self._request = program.create_infer_request()

    def predict(self, image_BHWC: UInt8Array) -> UInt8Array:
        """See `Engine`."""
        self._request.infer([image_BHWC], share_inputs=True)
        return quantise(self._request.get_output_tensor().data)
