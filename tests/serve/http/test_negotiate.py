"""The format for an Accept header, including those of real clients."""

import pytest

from roadseg_serve.errors import NotAcceptableError
from roadseg_serve.http.negotiate import OFFERS, negotiate, parse
from roadseg_serve.messages import MEDIA_TYPES, Format


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.JPEG),
        ("*/*", Format.JPEG),
        ("image/*", Format.JPEG),
        ("image/jpeg", Format.JPEG),
        ("image/jpg", Format.JPEG),
        ("IMAGE/PNG", Format.PNG),
        ("image/png", Format.PNG),
        ("image/png;level=9", Format.PNG),
        ("application/json", Format.JSON),
        ("application/json; charset=utf-8", Format.JSON),
        ("application/*", Format.JSON),
        # The heaviest wins, in whatever order; of equals our first.
        ("image/jpeg;q=0.5, image/png", Format.PNG),
        ("image/png;q=0.5, image/jpeg;q=0.6", Format.JPEG),
        ("application/json, image/png", Format.PNG),
        ("image/png, */*", Format.JPEG),
        ("image/png, */*;q=0.9", Format.PNG),
        ("application/json;q=0.9, image/*;q=0.8", Format.JSON),
        ("image/webp, application/json;q=0.001", Format.JSON),
        ("image/jpeg;q=0, */*", Format.PNG),  # the most specific range counts, not the heaviest
        ("image/*;q=0, */*;q=0.1", Format.JSON),
        ("image/jpeg;q=0, image/*", Format.PNG),
        # Chrome and Firefox open a page, or send a form.
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
            "application/signed-exchange;v=b3;q=0.7",
            Format.JPEG,
        ),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,image/svg+xml,"
            "*/*;q=0.8",
            Format.JPEG,
        ),
        ("text/html, image/jpeg;q=0, image/png;q=0.1", Format.PNG),
        ("text/html;q=0, image/png", Format.PNG),
        # axios and Angular, Java's URLConnection, curl and requests.
        ("application/json, text/plain, */*", Format.JPEG),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Format.JPEG),
        # What nobody can read says nothing.
        ("garbage", Format.JPEG),
        (",;, /;q=nan", Format.JPEG),
        ("image/png;q=2, image/jpeg;q=0.1", Format.JPEG),
        ("image/png;q=-1, image/jpeg;q=0.1", Format.JPEG),
        ("image/png;q=nan, application/json;q=0.1", Format.JSON),
    ],
)
def test_negotiate(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


@pytest.mark.parametrize(
    "accept",
    [
        "image/webp",
        "text/*",
        "text/html",
        "*/*;q=0",
        "image/jpeg;q=0.0",
        "application/problem+json",
        "text/html, image/jpeg;q=0",
    ],
)
def test_headers_that_no_offer_satisfies(accept: str) -> None:
    with pytest.raises(NotAcceptableError) as refusal:
        negotiate(accept)
    for media_type in ("image/jpeg", "image/png", "application/json"):
        assert media_type in str(refusal.value)


def test_weights_of_media_ranges() -> None:
    assert parse("a/b, c/*;q=0.5 , */* ; Q=.25;ext=1,d/e;q=1.000") == {"a/b": 1, "c/*": 0.5, "*/*": 0.25, "d/e": 1}


def test_every_media_type_is_offered_once() -> None:
    offered = [MEDIA_TYPES[offer] for offer in OFFERS]
    assert sorted(offered) == sorted(set(MEDIA_TYPES.values()))
