import numpy as np
import pytest

from roadseg_serve.engines.batch import bucket, quantise


def test_quantise_rounds_to_nearest_halves_up() -> None:
    prob = np.array([[0, 1, 0.5, 0.4999, 1 / 255, 0.0019]], np.float32)
    assert quantise(prob).tolist() == [[0, 255, 128, 127, 1, 0]]


@pytest.mark.parametrize(
    ("num_images", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16), (17, 32)]
)
def test_batches_are_computed_at_the_next_power_of_two(num_images: int, size: int) -> None:
    assert bucket(num_images) == size
