import pytest

from roadseg_train.fit.options import default_loaders


@pytest.mark.parametrize(
    ("gpu", "num_cpus", "num_loaders"),
    [
        (False, 1, 1),
        (False, 16, 1),
        (True, 1, 0),
        (True, 7, 0),  # five loaders are as quick as the GPU, and take five cores
        (True, 8, 6),
        (True, 16, 14),
    ],
)
def test_a_gpu_makes_its_own_crops_unless_there_are_cores_enough(gpu: bool, num_cpus: int, num_loaders: int) -> None:
    assert default_loaders(gpu=gpu, num_cpus=num_cpus) == num_loaders
