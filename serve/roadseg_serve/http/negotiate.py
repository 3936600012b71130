"""Which format an `Accept` header asks for (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Mapping
from functools import lru_cache

from roadseg_serve.errors import NotAcceptableError
from roadseg_serve.messages import MEDIA_TYPES, Format

# One for each media type, the preferred first. The others are had by `format` only.
OFFERS = (Format.JPEG, Format.PNG, Format.JSON)

# What old clients say, and what they mean.
ALIASES = {"image/jpg": "image/jpeg", "*": "*/*"}

# A weight from 0 to 1; Java leaves the zero out.
WEIGHT = re.compile(r"0?\.\d+|0\.?|1(\.0*)?")


@lru_cache(maxsize=64)  # clients say the same few things over and over
def negotiate(accept: str) -> Format:
    """The offer that the client likes best; of equals, the first of `OFFERS`.

    A browser that opens a page lists the pictures that it can show, PNG among them, whatever the address is: where
    text/html is accepted, JPEG is enough.

    Args:
        accept: the header's value; empty where there is none.

    Raises:
        NotAcceptableError: nothing on offer is acceptable.
    """
    weights = parse(accept)
    if not weights:
        return OFFERS[0]
    if weights.get("text/html") and weight_of(OFFERS[0], weights):
        return OFFERS[0]
    best = max(OFFERS, key=lambda offer: weight_of(offer, weights))
    if not weight_of(best, weights):
        offers = ", ".join(MEDIA_TYPES[offer] for offer in OFFERS)
        raise NotAcceptableError(
            f"No answer is of a type in the header 'Accept: {accept[:100]}'. Send one of {offers}, or choose with "
            f"?format= one of {', '.join(Format)}."
        )
    return best


def parse(accept: str) -> dict[str, float]:
    """Media ranges of an `Accept` header and their weights in [0, 1]; what is malformed is left out."""
    weights = {}
    for element in accept.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = next((part[2:].strip() for part in parameters if part.startswith("q=")), "1")
        name = ALIASES.get(name, name)
        if name.count("/") == 1 and WEIGHT.fullmatch(weight):
            weights[name] = float(weight)
    return weights


def weight_of(offer: Format, weights: Mapping[str, float]) -> float:
    """How much the client likes an offer, in [0, 1]: the most specific range that matches says so."""
    media_type = MEDIA_TYPES[offer]
    ranges = (media_type, media_type.split("/")[0] + "/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)
