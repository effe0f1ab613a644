"""Every error of the online half. A class takes facts and writes the sentence; `serving.protocol.status` maps to wire codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contract.errors import EspalierError, InvalidRequest, RepositoryError
from contract.units import listed, printable, quoted, size_text


class UnknownModel(EspalierError):
    """No model (task) of that name or version."""

    def __init__(self, name: str, known: Iterable[str], version: str = "") -> None:
        what = f"version {quoted(version)} of model {quoted(name)}" if version else f"model {quoted(name)}"
        super().__init__(f"Unknown {what}; known are: {listed(sorted(known))}.")
        self.name = name


class UnknownRegion(EspalierError):
    """No shared memory region of that name. The sentence names none: other clients' regions are not for everybody."""

    def __init__(self) -> None:
        super().__init__("The shared memory region is not registered; register it first.")


class TooManyNames(InvalidRequest):
    """A request names more outputs, or tasks, than there are. of: whose outputs."""

    limit = "names"

    def __init__(self, named: int, known: int, what: str, of: str = "") -> None:
        there_are = f"{of} has {known}" if of else f"there are {known}"
        super().__init__(f"The request names {named} {what}, and {there_are}; name each once.")


class TooManyRows(InvalidRequest):
    """A request that cannot be divided has more rows than a run may have."""

    def __init__(self, rows: int, limit: int, segment: str) -> None:
        super().__init__(
            f"The request has {rows} rows, of which {limit} can go at once, and it cannot be divided: in segment {segment!r} the rows of a "
            f"batch may affect each other. Send at most {limit} rows at a time."
        )


class NoImageTask(InvalidRequest):
    """An image came for all tasks that take one, and none does."""

    def __init__(self) -> None:
        super().__init__("No task takes images and gives classes; send tensors through v2/models/TASK/infer.")


class NoTextTask(InvalidRequest):
    """A text came for all tasks that take one, and none does."""

    def __init__(self) -> None:
        super().__init__("No task takes text and gives classes; send tensors through v2/models/TASK/infer.")


class NoText(InvalidRequest):
    """A request about texts without one."""

    def __init__(self) -> None:
        super().__init__("No text was given; give at least one.")


class TooManyTexts(InvalidRequest):
    """A request has more texts than may be."""

    limit = "texts"

    def __init__(self, texts: int, limit: int) -> None:
        super().__init__(f"The request has {texts} texts, more than the limit of {limit}; send fewer at once.")


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


class Unsupported(EspalierError):
    """A part of the protocol that this server does not offer."""


class NotReady(EspalierError):
    """The server is starting, draining, or its engine is down."""


class ModelNotReady(NotReady):
    """A segment cannot be opened. model: that needs it; "": some do."""

    def __init__(self, model: str, segments: Sequence[str]) -> None:
        more = f" and {len(segments) - 1} more" if len(segments) > 1 else ""
        what = f"Model {model!r} is not ready" if model else "Not every model is ready"
        super().__init__(f"{what}: segment {segments[0]!r}{more} cannot be opened from its files; the server's log says why.")


class EngineDown(NotReady):
    """What computes is somewhere else, and does not answer."""

    def __init__(self) -> None:
        super().__init__("What computes for this server does not answer at the moment; try again later.")


class QueueFull(EspalierError):
    """So much waits that one more request would only wait in vain. model: the one whose share of it is full; "": all of it is."""

    def __init__(self, waiting: int, limit: int, unit: str = "rows", model: str = "") -> None:
        full = f"for model {model!r}, whose share of the limit of {limit} has no room for this request" if model else ""
        super().__init__(f"{waiting} {unit} are waiting {full or f'and {limit} is the limit'}; try again later.")
        self.limit = {"rows": "queue", "bytes of requests": "pending_bytes", "pixels of images": "waiting_pixels"}.get(unit, "")


class TooManyCalls(QueueFull):
    """So many calls of gRPC, or streams, as `what` says, are under way that one more has no place."""

    def __init__(self, limit: int, what: str) -> None:
        super().__init__(limit, limit, what)
        self.limit = what


class DeadlineExceeded(EspalierError):
    """The client's time is up."""

    def __init__(self) -> None:
        super().__init__("The request's deadline has passed; what had not begun was not computed.")


class TaskFailed(EspalierError):
    """A task of a request could not be computed."""

    def __init__(self, task: str, reason: EspalierError) -> None:
        super().__init__(f"Task {task!r} could not be computed: {reason}")


class LoadFailed(EspalierError):
    """A model could not be loaded while serving; what was served before is served still."""

    def __init__(self, name: str, reason: EspalierError) -> None:
        super().__init__(f"Model {name!r} was not loaded, and nothing has changed: {reason}")


class NotATask(InvalidRequest):
    """Model control was asked for a model that comes and goes with others."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Model {name!r} is no task; it comes and goes with the tasks, so load or unload one of those.")


class LastModel(InvalidRequest):
    """The last task of a server cannot be unloaded."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Task {name!r} is the last one that is served; load another one first, or stop the server.")


class Unauthenticated(EspalierError):
    """Model control without a token."""

    def __init__(self) -> None:
        super().__init__("Loading and unloading models needs the token of this server, as `Authorization: Bearer TOKEN`.")


class Forbidden(EspalierError):
    """Model control with a wrong token."""

    def __init__(self) -> None:
        super().__init__("The token is not this server's.")


class EngineError(EspalierError):
    """A segment failed while it ran: ours to mend, not the client's."""


class SegmentClosed(EngineError):
    """A segment was to run at once, and would have had to be opened first."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Segment {name!r} is closed; open it first.")


class CannotBundle(EspalierError):
    """A segment cannot be computed in one session with others: it runs by itself. why: a clause."""

    def __init__(self, segment: str, why: str) -> None:
        super().__init__(f"Segment {segment!r} is run by itself, and not in one session with others: {why}.")
        self.segment = segment


class AddressInUse(EspalierError):
    """Another process listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"Port {port} on {host} is in use by another process; choose another port, or 0 for any free one.")


class ServerUnreachable(EspalierError):
    """No server answers at an address."""

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"No server answers at {url} ({printable(str(reason))}); start one with `espalier serve REPO`, or give another address."
        )


class RequestRefused(EspalierError):
    """A server that was asked said no, with a sentence of its own."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"The server refused the request ({status}): {printable(sentence)}")
        self.status = status


class InvalidLimit(EspalierError):
    """A limit is given in a form that says none."""

    def __init__(self, given: str, wanted: str) -> None:
        super().__init__(f"{given!r} sets no limit; give {wanted}.")


class InvalidAddress(EspalierError):
    """A host and port that this machine cannot listen on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"Cannot listen on port {port} of {host!r} ({reason}); give an address of this machine.")


class PrecisionUnavailable(EspalierError):
    """A precision that this processor has no instructions for."""

    def __init__(self, precision: str) -> None:
        super().__init__(
            f"This processor does not compute in {precision} (it has neither AVX512_BF16 nor AMX); choose fp32 or auto."
        )


class LessPrecise(RepositoryError):
    """A segment that can be loaded only if others, which are served, were computed more precisely. fault: as "differs by ..."."""

    def __init__(self, segment: str, fault: str, served: Iterable[str]) -> None:
        super().__init__(
            f"The answer of segment {segment!r} to the sample {fault}, because of how {listed(sorted(served))} is computed; start the "
            "server again, which will then compute that more precisely."
        )


class WrongAnswer(RepositoryError):
    """A task answers the sample otherwise than its whole network did when it was exported."""

    def __init__(self, task: str, version: str, output: str, difference: float, allowed: float) -> None:
        super().__init__(
            f"Version {version} of task {task!r} answers its recorded sample with an error of {difference:.3g} in {output!r}, where "
            f"{allowed:.3g} is allowed; its segments are not the exported ones, or are computed wrongly here: export it again."
        )


class SegmentTooLarge(RepositoryError):
    """A segment alone needs more memory than all may take."""

    def __init__(self, name: str, needed_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"Segment {name!r} needs about {size_text(needed_bytes)} of memory, more than the limit of {size_text(limit_bytes)}; "
            "raise the limit."
        )


class ProviderUnavailable(EspalierError):
    """An execution provider that does not work on this machine."""

    def __init__(self, name: str, usable: Iterable[str]) -> None:
        super().__init__(f"Execution provider {name!r} does not work here; choose one of: {', '.join(usable)}.")


class FeaturesElsewhere(EspalierError):
    """A feature cache for an engine whose features are not in this process."""

    def __init__(self) -> None:
        super().__init__(
            "There can be no feature cache where other servers compute: what their segments give stays there; leave it out, or let this "
            "process compute."
        )
