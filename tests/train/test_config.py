import pytest

from roadseg_train.config import PRESETS, TrainConfig, override
from roadseg_train.errors import RunError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_named_as_they_are_found(name: str) -> None:
    assert PRESETS[name]().preset == name


def test_fields_are_replaced_and_the_others_kept(config: TrainConfig) -> None:
    changed = override(config, ["learning_rate=0.5", "widths=[16, 32]", "precision=bfloat16"])
    assert (changed.learning_rate, changed.widths, changed.precision) == (0.5, (16, 32), "bfloat16")
    assert changed == config.model_copy(update={"learning_rate": 0.5, "widths": (16, 32), "precision": "bfloat16"})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rate", "no FIELD=VALUE with one of the fields preset, seed"),
        ("lerning_rate=1", "no FIELD=VALUE"),
        ("learning_rate=-1", "learning_rate: Input should be greater than 0"),
        ("widths=[8, 16]", "widths.0: Input should be greater than or equal to 16"),
        ("precision=float8", "precision: Input should be"),
    ],
)
def test_what_does_not_fit_is_told(config: TrainConfig, setting: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        override(config, [setting])
