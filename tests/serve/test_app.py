"""The graph as it is built: which deployments there are, and what stops it."""

from pathlib import Path

import pytest

from roadseg_serve.app import build
from roadseg_serve.errors import ArtefactError
from roadseg_serve.settings import AppArgs


def test_a_missing_model_is_a_start_up_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"manifest\.json is missing"):
        build(AppArgs(model=str(tmp_path / "nothing")))
