"""The JSON answer."""

import numpy as np
import numpy.typing as npt
import pytest

from roadseg_serve.messages import Answer, ModelName
from roadseg_serve.stages.findings import Findings, Reply, complete, findings, run_lengths


def decode(counts: list[int], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Turn run lengths back into a mask, pixel by pixel."""
    mask_HW = np.zeros(shape, np.uint8)
    place = 0
    for number, count in enumerate(counts):
        for _ in range(count):
            mask_HW[place % shape[0], place // shape[0]] = 255 * (number % 2)
            place += 1
    assert place == shape[0] * shape[1]
    return mask_HW


@pytest.mark.parametrize(
    ("mask_HW", "counts"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[255, 255], [255, 255]], [0, 4]),
        ([[0]], [1]),
        ([[255]], [0, 1]),
        ([[0, 255], [0, 255], [0, 255]], [3, 3]),  # down the columns
        ([[255, 255], [0, 0]], [0, 1, 1, 1, 1]),
        # The two examples in COCO's pycocotools/mask.py.
        ([[0], [0], [255], [255], [255], [0], [255]], [2, 3, 1, 1]),
        ([[255], [255], [255], [255], [255], [255], [0]], [0, 6, 1]),
    ],
)
def test_run_lengths(mask_HW: list[list[int]], counts: list[int]) -> None:
    assert run_lengths(np.array(mask_HW, np.uint8)) == counts


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (23, 31)])
def test_run_lengths_restore_any_mask(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask_HW = rng.integers(0, 2, shape, np.uint8) * np.uint8(255)
        assert np.array_equal(decode(run_lengths(mask_HW), shape), mask_HW)


def test_a_reply_has_findings_timings_and_id() -> None:
    mask_HW = np.array([[0, 255]], np.uint8)
    found = findings(mask_HW, b"PNG", road_share=0.5, threshold=0.5, model=ModelName("red", "1"))
    body = found.model_dump_json().encode()
    answer = Answer(body, "application/json", ModelName("red", "1"), 0.5, {"decode": 0.25, "infer": 0.0014})
    # An id is any visible ASCII.
    reply = Reply.model_validate_json(complete(answer, 'mine"}\\').body)
    assert (reply.request_id, reply.timings_ms) == ('mine"}\\', {"decode": 250.0, "infer": 1.4})
    assert Findings.model_validate(reply.model_dump(exclude={"request_id", "timings_ms"})) == found


def test_other_formats_stay_unchanged() -> None:
    answer = Answer(b"GIF", "image/png", ModelName("red", "1"), 0.5)
    assert complete(answer, "mine") is answer
