"""Which format an `Accept` header asks for (RFC 9110, section 12.5.1).

Own code, because parsers such as werkzeug's do not know what old clients send: `*`, `image/jpg` and weights like `.2`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from roadseg_serve.errors import NotAcceptableError
from roadseg_serve.messages import MEDIA_TYPES, Format

# One format per media type, preferred first. The others are reached only by `?format=`.
OFFERS = (Format.JPEG, Format.PNG, Format.JSON)

# What old clients send, and what they mean.
ALIASES = {"image/jpg": "image/jpeg", "*": "*/*"}

# A weight from 0 to 1; Java omits the zero.
WEIGHT = re.compile(r"0?\.\d+|0\.?|1(\.0*)?")


@lru_cache(maxsize=64)  # clients send the same few values over and over
def negotiate(accept: str) -> Format:
    """The offer that the client likes best; among equals, the first of `OFFERS`.

    A browser that opens a page accepts text/html and every picture that it can show, PNG among them: it gets JPEG.

    Raises:
        NotAcceptableError: the client accepts none of the offers.
    """
    weights = parse(accept)
    if not weights or (weights.get("text/html") and weight_of(OFFERS[0], weights)):
        return OFFERS[0]
    best = max(OFFERS, key=lambda offer: weight_of(offer, weights))
    if not weight_of(best, weights):
        offers = ", ".join(MEDIA_TYPES[offer] for offer in OFFERS)
        raise NotAcceptableError(
            f"The header 'Accept: {accept[:100]}' allows no type that we can send. Accept one of {offers}, or set "
            f"?format= to one of {', '.join(Format)}."
        )
    return best


def parse(accept: str) -> dict[str, float]:
    """Media ranges of an `Accept` header and their weights in [0, 1], without malformed ones."""
    weights = {}
    for element in accept.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = next((part[2:].strip() for part in parameters if part.startswith("q=")), "1")
        name = ALIASES.get(name, name)
        if name.count("/") == 1 and WEIGHT.fullmatch(weight):
            weights[name] = float(weight)
    return weights


def weight_of(offer: Format, weights: Mapping[str, float]) -> float:
    """The weight of the most specific range that matches an offer, in [0, 1]."""
    media_type = MEDIA_TYPES[offer]
    ranges = (media_type, media_type.split("/")[0] + "/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)
