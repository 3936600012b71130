import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from roadseg_train.config import TrainConfig, override
from roadseg_train.errors import RunError

BUNDLED = Path(__file__).parents[2] / "serve" / "roadseg_serve" / "models" / "bundled"


def test_fields_are_replaced_and_the_others_kept(config: TrainConfig) -> None:
    changed = override(config, ["learning_rate=0.5", "widths=[16, 32]", "precision=bfloat16"])
    assert (changed.learning_rate, changed.widths, changed.precision) == (0.5, (16, 32), "bfloat16")
    assert changed == config.model_copy(update={"learning_rate": 0.5, "widths": (16, 32), "precision": "bfloat16"})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rate", "not FIELD=VALUE with one of the fields preset, seed"),
        ("lerning_rate=1", "not FIELD=VALUE"),
        ("lovasz_weight=1", "not FIELD=VALUE"),
        ("learning_rate=-1", "learning_rate: Input should be greater than 0"),
        ("widths=[8, 16]", "widths.0: Input should be greater than or equal to 16"),
        ("precision=float8", "precision: Input should be"),
    ],
)
def test_invalid_settings_are_explained(config: TrainConfig, setting: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        override(config, [setting])


@pytest.mark.parametrize("manifest", sorted(BUNDLED.glob("*/*/manifest.json")), ids=str)
def test_the_configurations_of_published_models_can_be_read(manifest: Path) -> None:
    saved = json.loads(manifest.read_text())["training"]["config"]
    assert (saved["checkpoint_every_steps"], saved["lovasz_weight"]) == (500, 0.0)  # fields of earlier versions
    read = TrainConfig.model_validate(saved).model_dump(mode="json")
    assert read == {name: value for name, value in saved.items() if name in read}


def test_a_loss_that_was_removed_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ValidationError, match=r"the Lovász loss .* was removed"):
        TrainConfig.model_validate(config.model_dump() | {"lovasz_weight": 0.5})
