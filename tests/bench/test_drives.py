import pytest

from bench.drives import table, views_of
from roadseg_train.network.views import Views


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ("1", Views()),
        ("0.5,1", Views(scales=(0.5, 1))),
        ("0.5,1,mirror", Views(mirror=True, scales=(0.5, 1))),
    ],
)
def test_a_way_to_look_is_one_word(words: str, views: Views) -> None:
    assert views_of(words) == views


def test_the_table_has_each_drive_the_known_streets_and_the_mean_of_the_drives() -> None:
    scores = {
        ("without:A", 0): [0.90, 0.5],
        ("without:A", 1): [0.94, 0.5],
        ("without:B", 0): [0.80, 0.7],
        ("without:B", 1): [0.80, 0.7],
        ("fit", 0): [0.95, 0.9],
        ("fit", 1): [0.95, 0.9],
    }
    # The standard deviation of two values is their difference / √2.
    assert table([Views(), Views(mirror=True, scales=(0.5, 1))], scores).splitlines() == [
        "| road IoU, seeds 0 1 | at scale 1 | at scales 0.5 and 1, mirrored too |",
        "|---|---|---|",
        "| drive:A | 0.9200 ± 0.0283 (0.9000 0.9400) | 0.5000 ± 0.0000 (0.5000 0.5000) |",
        "| drive:B | 0.8000 ± 0.0000 (0.8000 0.8000) | 0.7000 ± 0.0000 (0.7000 0.7000) |",
        "| heldout | 0.9500 ± 0.0000 (0.9500 0.9500) | 0.9000 ± 0.0000 (0.9000 0.9000) |",
        "| mean of the drives | 0.8600 ± 0.0141 (0.8500 0.8700) | 0.6000 ± 0.0000 (0.6000 0.6000) |",
    ]


def test_one_seed_has_no_spread() -> None:
    assert table([Views()], {("without:A", 0): [0.9]}).splitlines()[-1] == "| mean of the drives | 0.9000 (0.9000) |"
