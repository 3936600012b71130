import numpy as np
import pytest

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID
from roadseg_train.data.geometry import SizeRule
from roadseg_train.evaluate.calibration import (
    Bin,
    Pixels,
    calibrate,
    ece,
    find_edges,
    fit_temperature,
    measure,
    sample_pixels,
)


def overconfident(num: int, factor: float, seed: int = 0) -> Pixels:
    """Pixels whose logits are `factor` times what they should be."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, num)
    road = rng.uniform(size=num) < 1 / (1 + np.exp(-logit))
    return Pixels(logit * factor, road)


def loss(pixels: Pixels, temperature: float) -> float:
    prob = 1 / (1 + np.exp(-pixels.logit / temperature))
    return float(-np.mean(np.where(pixels.road, np.log(prob), np.log(1 - prob))))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(factor: float) -> None:
    pixels = overconfident(50_000, factor)
    temperature = fit_temperature(pixels)
    assert temperature == pytest.approx(factor, rel=0.05)
    # and no other is better
    assert loss(pixels, temperature) <= min(loss(pixels, temperature * f) for f in (0.9, 0.99, 1.01, 1.1))


def test_pixels_without_a_mistake_stop_at_the_bound() -> None:
    assert fit_temperature(Pixels(np.array([-3.0, 2.0]), np.array([False, True]))) == pytest.approx(0.05)


def test_reliability_by_hand() -> None:
    # 0.5 claimed of four pixels of which one is road, and about 1 of one that is
    pixels = Pixels(np.array([0.0, 0.0, 0.0, 0.0, 50.0]), np.array([True, False, False, False, True]))
    edges = Pixels(np.array([0.0, 0.0]), np.array([True, True]))
    found = measure(pixels, edges, temperature=1.0)
    assert [(b.road_share, b.num_pixels) for b in found.bins] == [(0.25, 4), (1.0, 1)]
    assert found.ece == pytest.approx(4 / 5 * 0.25)
    assert found.edge_ece == pytest.approx(0.5)
    assert found.nll == pytest.approx(4 / 5 * np.log(2))
    assert measure(pixels, Pixels(np.zeros(0), np.zeros(0, bool)), 1.0).edge_ece is None


def test_ece_weighs_bins_by_their_pixels() -> None:
    bins = [
        Bin(mean_probability=0.2, road_share=0.1, num_pixels=30),
        Bin(mean_probability=0.9, road_share=1.0, num_pixels=10),
    ]
    assert ece(bins) == pytest.approx(0.1)


def test_one_side_fits_and_the_other_shows() -> None:
    nothing = Pixels(np.zeros(0), np.zeros(0, bool))
    threefold, honest = overconfident(20_000, 3.0), overconfident(20_000, 1.0, seed=1)
    found = calibrate(fitted=[(threefold, threefold)], shown=[(honest, honest)])
    assert found is not None
    assert found.temperature == pytest.approx(3, rel=0.05)
    assert found.before.ece < 0.01 < found.after.ece  # shown on pixels that needed no mending
    assert calibrate(fitted=[(threefold, threefold)], shown=[]) is None
    assert calibrate(fitted=[(nothing, nothing)], shown=[(honest, honest)]) is None


def test_edges_are_five_pixels_to_either_side_and_labelled() -> None:
    target_HW = np.full((3, 30), NOT_ROAD, dtype=np.uint8)
    target_HW[:, 15:] = ROAD
    target_HW[1, 14] = VOID
    edge_HW = find_edges(target_HW)
    # the border runs between columns 14 and 15
    assert np.flatnonzero(edge_HW[0]).tolist() == list(range(10, 20))
    assert not edge_HW[1, 14]
    assert edge_HW.sum() == 29
    assert not find_edges(np.full((3, 30), ROAD, dtype=np.uint8)).any()


def test_samples_are_labelled_pixels_with_their_own_probability() -> None:
    # The input has half the size and is padded; the probability tells the place it was read from.
    rule = SizeRule(short_side_px=10, max_long_side_px=99, multiple_px=16)
    prob_HW = np.full((16, 32), 0.99, dtype=np.float32)
    prob_HW[:10, :20] = (np.arange(20) + 1) / 50
    target_HW = np.where(np.arange(40) < 20, NOT_ROAD, ROAD).astype(np.uint8)[None].repeat(20, axis=0)
    target_HW[:, :10] = VOID
    pixels, edges = sample_pixels(prob_HW, target_HW, rule, seed=0)
    assert (pixels.road.size, edges.road.size) == (20 * 30, 20 * 10)  # fewer than would be drawn: all of them
    prob = 1 / (1 + np.exp(-pixels.logit))
    column = np.tile(np.arange(10, 40), 20)
    np.testing.assert_allclose(prob, (column // 2 + 1) / 50, rtol=1e-5)
    np.testing.assert_array_equal(pixels.road, column >= 20)


def test_a_large_frame_is_sampled_and_a_certain_probability_has_a_logit() -> None:
    rule = SizeRule(short_side_px=100, max_long_side_px=999, multiple_px=4)
    prob_HW = np.ones((100, 100), dtype=np.float32)
    pixels, _ = sample_pixels(prob_HW, np.full((100, 100), ROAD, np.uint8), rule, seed=0)
    assert pixels.road.size == 2048
    assert np.isfinite(pixels.logit).all()
