from bench.ablate import table


def test_the_table_has_the_mean_and_the_spread_of_the_seeds() -> None:
    # Deviations from the mean are -0.02, 0 and 0.02: the variance of three is 2 * 0.0004 / 2.
    assert table("loss", {"BCE": [0.90, 0.94, 0.92], "IoU": [0.5, 0.5, 0.5]}).splitlines() == [
        "| loss | held-out road IoU, mean of 3 | spread (sd) | each |",
        "|---|---|---|---|",
        "| BCE | 0.9200 | 0.0200 | 0.9000 0.9400 0.9200 |",
        "| IoU | 0.5000 | 0.0000 | 0.5000 0.5000 0.5000 |",
    ]


def test_one_seed_has_no_spread() -> None:
    assert table("loss", {"BCE": [0.9]}).splitlines()[-1] == "| BCE | 0.9000 | 0.0000 | 0.9000 |"
