"""The bytes of a request: too many, too slow, or not what they should be."""

from __future__ import annotations

from contract.errors import EspalierError, InvalidRequest


class BodyTooLarge(EspalierError):
    """A request's body is over the limit."""

    limit = "body"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request is larger than the limit of {limit_bytes} bytes.")


class ImageFileTooLarge(BodyTooLarge):
    """An image's file is over the limit for one."""

    limit = "image_bytes"


class TextBodyTooLarge(BodyTooLarge):
    """The body of a request about texts is over the limit for one."""

    limit = "texts_bytes"


class SmallMessageTooLarge(BodyTooLarge):
    """A message is over the limit of the methods that take no tensors."""

    limit = "small_message"


class HeadTooLarge(EspalierError):
    """A request's line and headers are over the limit."""

    limit = "head"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request's line and headers are larger than the limit of {limit_bytes} bytes; put less into them.")


class TooManyHeaders(EspalierError):
    """A request has more headers than the limit."""

    limit = "headers"

    def __init__(self, most: int) -> None:
        super().__init__(f"The request has more than {most} headers; send fewer.")


class UrlTooLong(EspalierError):
    """A request's URL is over the limit."""

    limit = "url"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request's URL is longer than the limit of {limit_bytes} bytes; send what it says in a body.")


class ChunksTooSmall(InvalidRequest):
    """What frames the chunks of a body is much more than the body."""

    limit = "chunks"

    def __init__(self, most: int) -> None:
        super().__init__(f"What frames the body's chunks is more than {most} times the body; send larger chunks.")


class Undecodable(InvalidRequest):
    """The bytes of a message are not the message that is expected."""

    def __init__(self) -> None:
        super().__init__("The message is not the one that this method takes: it cannot be decoded.")


class TooManyFields(InvalidRequest):
    """A message has so many parts beside tensors' data that they would take far more memory than its bytes."""

    limit = "fields"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The message has more than {most} fields beside tensors' data (inputs, outputs, parameters and what they hold, numbers "
            "of a shape, values that are not packed); send fewer."
        )


class TextTooLong(InvalidRequest):
    """A name, or another text of a message that is not a tensor's data, is too long."""

    limit = "names"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"A name, or another text of the message that is no tensor's data, is {size} long; the limit is {limit}."
        )


class HeadStalled(EspalierError):
    """A request's line and headers take too long to come."""

    limit = "head_time"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request's line and headers did not come within {seconds:g} seconds; send the request again.")


class BodyTooSlow(EspalierError):
    """A body takes memory, and too long to come."""

    limit = "body_time"

    def __init__(self, rate: int) -> None:
        super().__init__(f"The request's body came with fewer than {rate} bytes a second; send the request again.")


class BodyStalled(EspalierError):
    """A client stopped in the middle of a body, which takes memory."""

    limit = "body_time"

    def __init__(self, pause_s: float) -> None:
        super().__init__(f"Nothing more of the request's body came for {pause_s:g} seconds; send the request again.")


class MessageStalled(BodyStalled):
    """A message of a call has not come to its end."""

    limit = "stalled"
