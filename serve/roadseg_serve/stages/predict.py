"""The stage that runs the model: it batches frames for an engine.

Axes: B batch, H height, W width, C channel (R, G, B). Probability is uint8: 255 is certainly road, 0 not.
"""

import asyncio
import time
from threading import Lock
from typing import Any

from opentelemetry.context import Context, get_current
from ray import serve

from roadseg_serve.engines.batch import bucket
from roadseg_serve.engines.engine import create_engine, predict_all, program_of, warm_up
from roadseg_serve.errors import RefitError
from roadseg_serve.messages import Frame, ModelName, Prediction, UInt8Array
from roadseg_serve.models import artefact
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.observe import trace
from roadseg_serve.observe.metrics import ModelMetrics
from roadseg_serve.settings import ModelArgs


class Model:
    """`Frame` in, `Prediction` out; frames that wait at the same time form a batch.

    The model version at `uri` (see `artefact.resolve`) is verified before it is loaded.

    Raises:
        ArtefactError: the model cannot be read, or has no program for the engine.
        StartError: the engine cannot run here.
    """

    def __init__(self, *, uri: str, args: ModelArgs) -> None:
        gpu = args.num_gpus > 0
        version = artefact.read(artefact.resolve(uri), [program_of(args.engine, gpu=gpu)])
        manifest = version.manifest
        self._name = ModelName(manifest.name, manifest.version)
        self._threshold = manifest.threshold
        self.size_rule: SizeRule = manifest.input.size
        self._engine = create_engine(args.engine, version, num_threads=args.num_threads, gpu=gpu)
        self._engine_lock = Lock()
        # On a GPU, batches are padded to one of a few sizes, each of which needs a warm-up.
        buckets = {bucket(num_images) for num_images in range(1, args.max_batch_size + 1)} if gpu else {1}
        warm_up(self._engine, self.size_rule, sorted(buckets))
        self._metrics = ModelMetrics(self._name)
        together = serve.batch(
            max_batch_size=args.max_batch_size,
            batch_wait_timeout_s=args.batch_wait_timeout_s,
            max_concurrent_batches=args.max_concurrent_batches,
        )
        self._predict: Any = together(self._predict_together)  # takes one frame, unlike its type

    async def __call__(self, frame: Frame) -> Prediction:
        """Predict one frame.

        Raises:
            RefitError: the frame was scaled by the rule of another model.
        """
        if frame.size_rule != self.size_rule:
            raise RefitError(self.size_rule)
        with trace.span("predict"):
            prediction: Prediction = await self._predict(frame, get_current())
            return prediction

    def check_health(self) -> None:
        """Ray Serve calls this every few seconds; the replica is healthy if it returns."""
        self._metrics.note_loaded()

    async def _predict_together(self, frames: list[Frame], contexts: list[Context]) -> list[Prediction]:
        started_ns, started_s = time.time_ns(), time.perf_counter()
        # In a thread, so that the next batch can collect frames meanwhile.
        probs_HW = await asyncio.to_thread(self._predict_alone, [frame.input_HWC for frame in frames])
        infer_s = time.perf_counter() - started_s
        self._metrics.note_batch(len(frames))
        attributes = {"roadseg.batch_size": len(frames)}
        for context in contexts:  # a span in the trace of every request of the batch
            trace.record_span("infer", context, started_ns=started_ns, time_s=infer_s, attributes=attributes)
        return [
            frame.predicted(prob_HW, threshold=self._threshold, model=self._name, infer_s=infer_s)
            for frame, prob_HW in zip(frames, probs_HW, strict=True)
        ]

    def _predict_alone(self, images_HWC: list[UInt8Array]) -> list[UInt8Array]:
        with self._engine_lock:
            return predict_all(self._engine, images_HWC)
