"""The graph in one process: the same stages, called where they are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from roadseg_serve.errors import OverloadedError
from roadseg_serve.graph.ingress import Ingress
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.settings import AppArgs
from roadseg_serve.stages.postprocess import Postprocess
from roadseg_serve.stages.predict import Model
from roadseg_serve.stages.preprocess import Limits, Preprocess


class Here:
    """A stage of this process, called as a stage of another one is: its arguments may still be on their way."""

    def __init__(self, stage: Callable[..., Awaitable[Any]], *, max_requests: float = float("inf")) -> None:
        self._stage = stage
        self._max_requests = max_requests
        self._num_requests = 0

    def remote(self, *args: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        """Call the stage once its arguments are there.

        Raises:
            OverloadedError: when awaited, where the stage has enough to do.
        """
        return asyncio.ensure_future(self._call(args, kwargs))

    async def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = [await value if isinstance(value, asyncio.Task) else value for value in args]
        if self._num_requests >= self._max_requests:
            raise OverloadedError("Too many pictures are waiting. Try again in a moment.")
        self._num_requests += 1
        try:
            return await self._stage(*values, **kwargs)
        finally:
            self._num_requests -= 1


class Fused(Ingress):
    """All stages in one process, with as many of them as `args.predict` says.

    Raises:
        ArtefactError: the model cannot be read.
    """

    def __init__(self, *, args: AppArgs, manifest: Manifest) -> None:
        predict = args.predict
        most = predict.max_ongoing_requests + predict.max_queued_requests
        model = Model(uri=args.model, args=predict)
        super().__init__(
            Here(Preprocess(limits=Limits.of(args))),
            Here(model, max_requests=most if predict.max_queued_requests >= 0 else float("inf")),
            Here(Postprocess(threshold=args.threshold)),
            args=args,
            manifest=manifest,
        )
        self.check_health = model.check_health
