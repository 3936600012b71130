"""ONNX Runtime on the CPU, in float32."""

from pathlib import Path

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from roadseg_serve.engines.batch import quantise
from roadseg_serve.errors import ArtefactError
from roadseg_serve.messages import UInt8Array


class OnnxRuntimeEngine:
    """Runs `model.onnx` in ONNX Runtime, with `num_threads` CPU threads for each call."""

    def __init__(self, onnx_path: Path, *, num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        try:
            self._session = onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
            raise ArtefactError(f"ONNX Runtime cannot load {onnx_path}; publish the model again") from error

    def predict(self, image_BHWC: UInt8Array) -> UInt8Array:
        """See `Engine`."""
        (prob_BHW,) = self._session.run(["prob"], {"image": image_BHWC})
        return quantise(prob_BHW)
