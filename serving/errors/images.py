"""A picture that is none, or too much of one."""

from __future__ import annotations

from contract.errors import InvalidRequest


class NotAnImage(InvalidRequest):
    """The bytes do not decode to an image."""


class TooManyPixels(NotAnImage):
    """A picture, pictures together, or what becomes of them when they are resized: more pixels than may be."""

    limit = "pixels"


class TooManyFiles(InvalidRequest):
    """A form has more files than may be."""

    limit = "files"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The form has more than the limit of {limit} files; send fewer at once.")


class TooManySections(NotAnImage):
    """An image's file is cut into very many pieces."""

    limit = "sections"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The image's file has more than the limit of {limit} sections; save the picture again.")


class TooManyScans(NotAnImage):
    """A decoder would go through a picture very often. pixels: of it; limit: pixels times scans. where: as " in file 1"."""

    limit = "scans"

    def __init__(self, scans: int, pixels: int, limit: int, where: str) -> None:
        super().__init__(
            f"The image{where} has {scans} scans of {pixels} pixels, and {limit} pixels in all scans together are the limit; save it "
            "with fewer scans, as baseline JPEG for example."
        )


class TooCostlyImage(NotAnImage):
    """Decoding has taken more memory or processor time than any picture of this size needs. where: as " in file 1"."""

    limit = "decoding"

    def __init__(self, where: str) -> None:
        super().__init__(f"The image{where} takes more memory or time to decode than its size explains; save the picture again.")
