"""The whole graph in one process, staged and fused, with a model that answers red / 255."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.serve.context
from ray import serve
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.config import DeploymentConfig

from roadseg_serve.app import build
from roadseg_serve.messages import Answer, AnswerOptions
from roadseg_serve.settings import AppArgs

Segment = Callable[..., Answer]  # of bytes, and of a options where there is one


@pytest.fixture(scope="module", params=["staged", "fused"])
def segment(request: pytest.FixtureRequest, red_artefact: Path) -> Iterator[Segment]:
    """The graph of `build`, called as one function; the two private corners of Ray Serve meet only here."""
    context: Any = ray.serve.context
    context._set_internal_replica_context(  # batching asks for it, and local testing mode does not set it
        replica_id=ReplicaID("local", DeploymentID("Model")),
        servable_object=None,
        _deployment_config=DeploymentConfig(max_ongoing_requests=16),
        rank=None,
        world_size=1,
    )
    args = AppArgs(model=str(red_artefact), form=request.param)
    handle = serve.run(build(args), _local_testing_mode=True)

    def once(data: bytes, options: AnswerOptions | None = None) -> Answer:
        answer: Answer = handle.segment.remote(data, options or AnswerOptions()).result(timeout_s=30)
        return answer

    yield once
    context._INTERNAL_REPLICA_CONTEXT = None
