"""The stage that speaks HTTP: it holds the graph's handles and puts the routes of `api` on them."""

import asyncio
from typing import Any

import numpy as np
from fastapi import FastAPI
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle

from roadseg_serve.api import Service, create_api
from roadseg_serve.artefact import Manifest
from roadseg_serve.errors import ModelUnavailableError
from roadseg_serve.messages import Answer, Format, Frame, ModelName, Placement, Prediction, Wish

PROBE_TIMEOUT_S = 5.0


class Ingress:
    """The stage: HTTP in and out.

    Args:
        preprocess: uploaded bytes to `Frame`.
        model: `Frame` to `Prediction`.
        postprocess: `Prediction` to `Answer`.
        manifest: of the model being served.
        max_upload_bytes: longer uploads are refused while they arrive.
    """

    def __init__(
        self,
        preprocess: DeploymentHandle[Any],
        model: DeploymentHandle[Any],
        postprocess: DeploymentHandle[Any],
        *,
        manifest: Manifest,
        max_upload_bytes: int,
    ) -> None:
        self._preprocess = preprocess
        self._model = model
        self._postprocess = postprocess
        self._manifest = manifest
        self._max_upload_bytes = max_upload_bytes

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes; Ray Serve asks for them when a replica starts."""
        return create_api(
            Service(
                segment=self.segment,
                probe=self.probe,
                manifest=self._manifest,
                max_upload_bytes=self._max_upload_bytes,
            )
        )

    async def segment(self, data: bytes, wish: Wish) -> Answer:
        """Uploaded bytes to the answer. What is between goes from replica to replica, not through here.

        Raises:
            RequestError: the upload is refused.
        """
        keep_picture = wish.format is Format.OVERLAY
        frame = self._preprocess.remote(data, self._manifest.input.size, keep_picture=keep_picture)
        prediction = self._model.remote(frame)
        answer: Answer = await self._postprocess.remote(prediction, wish, frame if keep_picture else None)
        return answer

    async def probe(self) -> ModelName:
        """Ask the model about the smallest input.

        Raises:
            ModelUnavailableError: no answer within `PROBE_TIMEOUT_S`.
        """
        side_px = self._manifest.input.size.multiple_px
        input_HWC = np.zeros((side_px, side_px, 3), np.uint8)
        frame = Frame(input_HWC, Placement(side_px, side_px, side_px, side_px), self._manifest.input.size)
        try:
            prediction: Prediction = await asyncio.wait_for(self._model.remote(frame), PROBE_TIMEOUT_S)
        except (TimeoutError, RayError) as error:
            raise ModelUnavailableError(
                f"No model answered within {PROBE_TIMEOUT_S:g} s. Try again in a moment."
            ) from error
        return prediction.model
