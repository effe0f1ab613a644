"""HTTP/1.1 on a connection: uvicorn's protocol on httptools, within limits, one request after the other.

What comes goes to the parser up to the end of a head or of a body, and no further before the request is answered: what a client sends
ahead waits as bytes, and few of them.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.errors import ChunksTooSmall, HeadTooLarge, ServingError, TooManyHeaders, UrlTooLong
from serving.protocol.connections import Connections
from serving.protocol.http_upgrade import HttpUpgradePassed
from serving.protocol.progress import Phase, Progress
from serving.protocol.status import sentence, wire_codes

_END = re.compile(rb"\n\r\n")  # of a head, and of a body in chunks; within one, it does no harm to pause there
_MOST_AHEAD = 64 * 1024  # bytes behind the request that is answered; then nothing is read
_AT_ONCE = 32 * 1024  # bytes of chunks, before others have their turn
_FRAMING = 8  # bytes around one of a body in chunks
_DRAIN_PAUSE_S = 1.0  # for bodies and answers that do not move while the server waits for its end
_NOTHING = memoryview(b"")


class HttpProtocol(HttpUpgradePassed):
    """One connection of `connections`, within their limits."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._all = connections
        self._limits = connections.limits
        self.progress = Progress(connections.now)
        self._rest = _NOTHING  # what has come and was not parsed
        self._later = bytearray()  # what came while there was a rest
        self._tail = b""  # of what was parsed, where an end may have begun
        self._body_left = -1  # bytes; -1: in chunks, or unknown
        self._body_bytes = 0
        self._unread = connections.pending.hold()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._all.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what is under way, and what waits behind it."""
        self._forget_rest()
        self._all.closed(self)
        self._unread.release()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """Go on: almost all has been taken."""
        self._unread.release()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close when what is under way is answered."""
        if self.progress.phase is Phase.LINGER:
            self.transport.close()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, in whatever pieces; what follows the request that is answered waits."""
        progress = self.progress
        progress.moved = self._all.now
        if progress.phase is Phase.LINGER:
            return
        if self._rest:
            self._later += data
            self._limit_ahead()
        else:
            self._rest = memoryview(data)
            self._feed()

    def check(self, now: float) -> None:
        """Close the connection if it has not got on."""
        progress, limits = self.progress, self._limits
        most_pause_s = min(limits.body_s, _DRAIN_PAUSE_S) if self._all.is_draining else limits.body_s
        most_unread_s = min(limits.unread_s, _DRAIN_PAUSE_S) if self._all.is_draining else limits.unread_s
        if progress.is_unread(self.transport.get_write_buffer_size(), now, most_unread_s):
            self._all.refused("unread")
            self.transport.abort()
        elif self.flow.read_paused or self.transport.is_closing():
            progress.restart(now)
        elif late := progress.lateness(limits, now, most_pause_s):
            self._refuse(late)
        elif progress.is_over(limits, now):
            if progress.phase is Phase.SILENT:
                self._all.refused("silent")
            self.transport.close()

    def is_deaf(self) -> bool:
        """Return whether nothing is read, so that the client's end is not heard of."""
        return self.flow.read_paused and not self.transport.is_closing()

    def on_url(self, url: bytes) -> None:
        """Note a part of the URL."""
        super().on_url(url)
        if len(self.url) > self._limits.url_bytes:
            raise UrlTooLong(self._limits.url_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, and the length of the body that it tells."""
        if len(self.headers) >= self._limits.headers:
            raise TooManyHeaders(self._limits.headers)
        super().on_header(name, value)
        if len(name) == 14 and self.progress.phase is Phase.HEAD and name.lower() == b"content-length":
            self._body_left = int(value)

    def head_ended(self) -> None:
        """Wait for the body."""
        self._body_bytes = 0
        self.progress.enter(Phase.BODY, self._all.now)

    def on_body(self, body: bytes) -> None:
        """Note a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def body_ended(self) -> None:
        """Wait for the answer."""
        self._body_left = -1
        self.progress.enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER, self._all.now)

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self.server_state.total_requests += 1
        if self.flow.write_paused:
            self.progress.unread = 0
            self._unread.count(self.transport.get_write_buffer_size())
        if self.transport.is_closing():
            return
        if self.progress.phase is Phase.ANSWER:
            self.progress.enter(Phase.IDLE, self._all.now)
        self.flow.resume_reading()
        if self._rest:
            self._feed()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of every error, and close."""
        self._reject(400, msg)

    def _feed(self) -> None:
        """Parse what there is, up to the end of a request."""
        end = max(0, len(self._rest) - _AT_ONCE)
        try:
            while self._rest and self.progress.phase is not Phase.ANSWER:
                if self._body_left < 0 and self.progress.phase is Phase.BODY and len(self._rest) < end:
                    self.loop.call_soon(self._go_on)
                    break
                self._feed_part()
        except ServingError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            self._refuse_syntax(error)
        self._limit_ahead()

    def _go_on(self) -> None:
        if self._rest and not self.transport.is_closing():
            self._feed()

    def _feed_part(self) -> None:
        """Parse the rest of a body whose length is known, or what comes before the next end of a head or of chunks."""
        rest, progress = self._rest, self.progress
        in_body = progress.phase is Phase.BODY
        if in_body and self._body_left >= 0:
            size = min(self._body_left, len(rest))
            self._body_left -= size
        else:
            size = self._end(rest)
        if not in_body:
            self._begin_head(size)
        progress.received += size
        self._take(len(rest), size)
        self.parse(rest[:size])
        if in_body and self._body_left < 0 and progress.received - self._body_bytes > self._most_framing():
            raise ChunksTooSmall(_FRAMING)

    def _take(self, length: int, size: int) -> None:
        """Take `size` bytes off the rest, which has `length`."""
        if size < length:
            self._rest = self._rest[size:]
        elif self._later:
            self._rest, self._later = memoryview(bytes(self._later)), bytearray()
        else:
            self._rest = _NOTHING

    def _begin_head(self, size: int) -> None:
        """Note that `size` bytes of a head are to be parsed. Raises HeadTooLarge."""
        progress = self.progress
        if progress.phase is not Phase.HEAD:
            progress.enter(Phase.HEAD, self._all.now)
        if progress.received + size > self._limits.head_bytes:
            raise HeadTooLarge(self._limits.head_bytes)

    def _most_framing(self) -> int:
        return self._limits.head_bytes + _FRAMING * self._body_bytes

    def _end(self, rest: memoryview) -> int:
        """Return up to where `rest` goes to the parser at once: to the next end."""
        if self._tail:
            place = (self._tail + bytes(rest[:2])).find(b"\n\r\n")
            if place >= 0:
                size, self._tail = place + 3 - len(self._tail), b""
                return size
        found = _END.search(rest, 0, _AT_ONCE)
        if found:
            self._tail = b""
            return found.end()
        size = min(len(rest), _AT_ONCE)
        self._tail = (self._tail + bytes(rest[max(0, size - 2) : size]))[-2:]
        return size

    def _limit_ahead(self) -> None:
        """Read nothing more while much waits."""
        if len(self._rest) + len(self._later) > _MOST_AHEAD:
            self._flow.hold()
        elif self._flow.is_held:
            self._flow.is_held = False
            if self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
                self.flow.resume_reading()

    def _refuse(self, error: ServingError) -> None:
        """Answer with `error`, and close."""
        self._all.refused(error.limit)
        self._reject(wire_codes(error).http, sentence(error))

    def _refuse_syntax(self, error: httptools.HttpParserError) -> None:
        if isinstance(error.__context__, ServingError):
            self._refuse(error.__context__)
            return
        self.logger.warning("Invalid HTTP request received.")
        self.send_400_response(f"The request is not HTTP/1.1 that can be read: {error}.")

    def _reject(self, status: int, text: str) -> None:
        """Give up the request, say why if nothing else has been said, and close when the client has had time to read it."""
        self._forget_rest()
        cycle, is_late = self.cycle, self.progress.phase is Phase.BODY
        if is_late and cycle is not None:
            is_late = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
        if is_late:
            self.transport.abort()
            return
        body = json.dumps({"error": text}).encode()
        head = [*self.server_state.default_headers, (b"content-type", b"application/json"), (b"connection", b"close")]
        lines = [b"%s: %s\r\n" % header for header in (*head, (b"content-length", b"%d" % len(body)))]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.progress.enter(Phase.LINGER, self._all.now)
        self.transport.write_eof()

    def _forget_rest(self) -> None:
        self._rest = _NOTHING
        self._later = bytearray()


class _Flow(FlowControl):
    """Reads nothing while it is held, whoever wants to go on."""

    is_held = False

    def hold(self) -> None:
        """Read nothing until nobody holds it."""
        self.is_held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if not self.is_held:
            super().resume_reading()
