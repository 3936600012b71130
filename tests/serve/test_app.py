"""The settings: what is accepted, and what is refused when they are read."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roadseg_serve.app import AppArgs, build
from roadseg_serve.errors import ArtefactError


def test_the_defaults_fit_two_cpus() -> None:
    assert AppArgs().num_cpus == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"treshold": 0.5},
        {"threshold": 1.5},
        {"max_pixels": 0},
        {"predict": {"num_replica": 2}},
        {"predict": {"num_cpus": 0}},
        {"predict": {"max_batch_size": 8, "max_ongoing_requests": 7}},
        {"preprocess": {"max_batch_size": 8}},
    ],
)
def test_mistakes_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AppArgs.model_validate(settings)


def test_a_missing_model_is_a_start_up_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"manifest\.json is missing"):
        build(AppArgs(model=str(tmp_path / "nothing")))
