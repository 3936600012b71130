"""Arithmetic on the text that Ray's nodes expose to Prometheus, for a server without Prometheus."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]  # name and labels to value


def parse(text: str, names: Collection[str], *, node: str) -> Series:
    """Read the series with these names; `node` becomes a label, so that series of different nodes differ."""
    prefixes = tuple(names)
    lines = "\n".join(line for line in text.splitlines() if line.startswith(prefixes)) + "\n"
    return {
        (sample.name, frozenset({**sample.labels, "node": node}.items())): sample.value
        for family in text_string_to_metric_families(lines)
        for sample in family.samples
        if sample.name in names
    }


def increases(before: Series, now: Series) -> Series:
    """How much each counter has grown; one that has shrunk was restarted and counts from 0, as a new one does."""
    return {key: value - old if (old := before.get(key, 0.0)) <= value else value for key, value in now.items()}


def sums(series: Series, *names: str, by: str, **labels: str) -> dict[str, float]:
    """The sum of the series with one of these names and all these labels, for each value of the label `by`."""
    found: dict[str, float] = defaultdict(float)
    for (name, pairs), value in series.items():
        if name in names and labels.items() <= pairs:
            found[dict(pairs).get(by, "")] += value
    return found


def quantile(buckets: Mapping[str, float], fraction: float) -> float | None:
    """The value that `fraction` of all observations do not exceed, as Prometheus' `histogram_quantile`.

    `buckets` maps the label `le`, an upper bound, to the number of observations up to it. The value is interpolated
    within a bucket; it is the highest finite bound if it lies above that, and None without observations.
    """
    rank, value = fraction * max(buckets.values(), default=0.0), None
    for lower, upper, below, num in _filled_buckets(buckets):
        value = lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / num
        if below + num >= rank:
            break
    return value


def mean_of_integers(buckets: Mapping[str, float]) -> float | None:
    """The mean of integers from 1 on, of which those in a wide bucket count as its middle; None without any.

    `_sum` would not do: Ray fills it with the middles between bounds, which for integers are half too low.
    """
    total, num_all = 0.0, 0.0
    for lower, upper, _, num in _filled_buckets(buckets):
        total += num * (lower if upper == float("inf") else (lower + 1 + upper) / 2)
        num_all += num
    return total / num_all if num_all else None


def _filled_buckets(buckets: Mapping[str, float]) -> Iterator[tuple[float, float, float, float]]:
    """Lower and upper bound, observations below and within, of each bucket that has any."""
    lower, below = 0.0, 0.0
    for upper, up_to in sorted((float(le), num) for le, num in buckets.items()):
        if up_to > below:
            yield lower, upper, below, up_to - below
        lower, below = upper, up_to
