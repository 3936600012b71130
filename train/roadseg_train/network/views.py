"""How the networks of a program look at a picture: as it is, mirrored, smaller, larger; the mean of it all counts."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _check_different(scales: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(scales)) < len(scales):
        raise ValueError("a scale is given twice")
    return scales


Scales = Annotated[
    tuple[Annotated[float, Field(ge=0.25, le=4)], ...], Field(min_length=1), AfterValidator(_check_different)
]


class Views(BaseModel):
    """What each network sees of one picture.

    Attributes:
        mirror: the picture flipped left to right, too.
        scales: factors of the sides, each once; small ones show more of the street at a glance, large ones its edges.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mirror: bool = False
    scales: Scales = (1.0,)

    @property
    def count(self) -> int:
        """How often each network looks."""
        return len(self.scales) * (2 if self.mirror else 1)

    @property
    def suffix(self) -> str:
        """For the name of a folder: nothing where the picture is seen as it is."""
        scales = "" if self.scales == (1.0,) else "-scales-" + "-".join(f"{scale:g}" for scale in self.scales)
        return scales + ("-mirror" if self.mirror else "")

    def text(self) -> str:
        """For a sentence, such as `at scales 0.5 and 1.5, mirrored too`."""
        *scales, last = [f"{scale:g}" for scale in self.scales]
        at = f"at scales {', '.join(scales)} and {last}" if scales else f"at scale {last}"
        return at + (", mirrored too" if self.mirror else "")
