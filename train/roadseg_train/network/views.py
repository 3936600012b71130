"""Test-time augmentation: the network sees an image at several scales and mirrored; predictions are averaged."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field


def _check_different(scales: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(scales)) < len(scales):
        raise ValueError("scales must be different")
    return scales


Scales = Annotated[
    tuple[Annotated[float, Field(ge=0.25, le=4)], ...], Field(min_length=1), AfterValidator(_check_different)
]


class Views(BaseModel, extra="forbid", frozen=True):
    """The versions of an image that the network sees."""

    mirror: bool = False  # whether it also sees the image mirrored left to right
    scales: Scales = (1.0,)  # factors of both sides; small ones give context, large ones sharp edges

    @property
    def count(self) -> int:
        """The number of predictions that are averaged."""
        return len(self.scales) * (2 if self.mirror else 1)

    @property
    def suffix(self) -> str:
        """For folder names; empty for the plain image."""
        scales = "" if self.scales == (1.0,) else "-scales-" + "-".join(f"{scale:g}" for scale in self.scales)
        return scales + ("-mirror" if self.mirror else "")

    def text(self) -> str:
        """For sentences, such as `at scales 0.5 and 1.5, mirrored too`."""
        *scales, last = [f"{scale:g}" for scale in self.scales]
        at = f"at scales {', '.join(scales)} and {last}" if scales else f"at scale {last}"
        return at + (", mirrored too" if self.mirror else "")
