import pytest
from pydantic import ValidationError

from roadseg_train.network.views import Views


@pytest.mark.parametrize(
    ("views", "count", "suffix", "text"),
    [
        (Views(), 1, "", "at scale 1"),
        (Views(mirror=True), 2, "-mirror", "at scale 1, mirrored too"),
        (Views(scales=(0.5, 1, 1.25)), 3, "-scales-0.5-1-1.25", "at scales 0.5, 1 and 1.25"),
        (Views(mirror=True, scales=(0.5, 1.5)), 4, "-scales-0.5-1.5-mirror", "at scales 0.5 and 1.5, mirrored too"),
    ],
)
def test_views_are_counted_and_told(views: Views, count: int, suffix: str, text: str) -> None:
    assert (views.count, views.suffix, views.text()) == (count, suffix, text)


@pytest.mark.parametrize("scales", [(), (0.1,), (5,), (1, 1.0), ("large",)])
def test_what_is_no_scale_is_refused(scales: object) -> None:
    with pytest.raises(ValidationError):
        Views.model_validate({"scales": scales})
