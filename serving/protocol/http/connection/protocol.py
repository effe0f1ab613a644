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

from contract.errors import EspalierError
from serving.errors import ChunksTooSmall, HeadTooLarge, TooManyHeaders, UrlTooLong
from serving.protocol.http.connection.connections import Connections
from serving.protocol.http.connection.progress import Phase, Progress
from serving.protocol.http.connection.upgrade import HttpUpgradePassed
from serving.protocol.status import sentence, wire_codes

_END = re.compile(rb"\n\r\n")  # of a head, and of a body in chunks; within one, it does no harm to pause there
_MOST_AHEAD = 64 * 1024  # bytes behind the request that is answered; then nothing is read
_AT_ONCE = 16 * 1024  # bytes of chunks, before others have their turn
_FRAMING = 8  # bytes around one of a body in chunks
_DRAIN_PAUSE_S = 1.0  # for bodies and answers that do not move while the server waits for its end
_NOTHING = memoryview(b"")
_SILENT, _IDLE, _HEAD, _BODY, _ANSWER, _LINGER = Phase


class HttpProtocol(HttpUpgradePassed):
    """One connection of `connections`, within their limits."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._all = connections
        self._limits = connections.limits
        self._most_headers = connections.limits.headers
        self.progress = Progress(connections.now)
        self._rest = _NOTHING  # what has come and was not parsed
        self._later = bytearray()  # what came while there was a rest
        self._tail = b""  # of what was parsed, where an end may have begun
        self._body_left = -1  # bytes; -1: in chunks, or unknown
        self._body_bytes = 0
        self._unread = connections.budget.reserve()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.flow = self._flow = _PausableFlow(transport)
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
        if self.progress.phase is _LINGER:
            self.transport.close()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, in whatever pieces; what follows the request that is answered waits."""
        progress = self.progress
        progress.moved = self._all.now
        if progress.phase is _LINGER:
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
            if progress.phase is _SILENT:
                self._all.refused("silent")
            self.transport.close()

    def is_deaf(self) -> bool:
        """Return whether nothing is read, so that the client's end is not heard of."""
        return self.flow.read_paused and not self.transport.is_closing()

    def on_url(self, url: bytes) -> None:
        """Note a part of the URL."""
        self.url += url
        if len(self.url) > self._limits.url_bytes:
            raise UrlTooLong(self._limits.url_bytes)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, and what it says of the body."""
        headers = self.headers
        if len(headers) >= self._most_headers:
            raise TooManyHeaders(self._most_headers)
        name = name.lower()
        if name == b"content-length":
            self._body_left = int(value) if self.progress.phase is not _BODY else self._body_left
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def head_ended(self) -> None:
        """Wait for the body."""
        self._body_bytes = 0
        self.progress.enter(_BODY, self._all.now)

    def on_body(self, body: bytes) -> None:
        """Note a part of the body."""
        cycle = self.cycle
        self._body_bytes += len(body)
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def body_ended(self) -> None:
        """Wait for the answer."""
        self._body_left = -1
        self.progress.enter(_IDLE if self.cycle.response_complete else _ANSWER, self._all.now)

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self.server_state.total_requests += 1
        if self.flow.write_paused:
            self.progress.unread = 0
            self._unread.count(self.transport.get_write_buffer_size())
        if self.transport.is_closing():
            return
        if self.progress.phase is _ANSWER:
            self.progress.enter(_IDLE, self._all.now)
        self.flow.resume_reading()
        if self._rest:
            self._feed()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of every error, and close."""
        self._reject(400, msg)

    def _feed(self) -> None:
        """Parse what there is, up to the end of a request."""
        left = _AT_ONCE
        try:
            while (rest := self._rest) and (phase := self.progress.phase) is not _ANSWER:
                if phase is not _BODY:
                    self._feed_head(rest)
                elif self._body_left > 0:
                    self._feed_body(rest)
                elif left > 0:
                    left -= self._feed_chunks(rest)
                else:
                    self.loop.call_soon(self._go_on)
                    break
        except EspalierError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            self._refuse_syntax(error)
        if self._rest or self._flow.is_paused:
            self._limit_ahead()

    def _go_on(self) -> None:
        if self._rest and not self.transport.is_closing():
            self._feed()

    def _feed_head(self, rest: memoryview) -> None:
        """Parse what there is of a head. Raises HeadTooLarge."""
        progress, size = self.progress, self._end(rest)
        if progress.received + size > self._limits.head_bytes:
            raise HeadTooLarge(self._limits.head_bytes)
        self.parse(self._taken(rest, size))
        if progress.phase is _IDLE or progress.phase is _SILENT:  # it has not ended
            progress.enter(_HEAD, self._all.now)
        if progress.phase is _HEAD:
            progress.received += size

    def _feed_body(self, rest: memoryview) -> None:
        """Parse what there is of a body whose length is known."""
        size, left = len(rest), self._body_left
        if size > left:
            size = left
        self._body_left = left - size
        self.progress.received += size
        self.parser.feed_data(self._taken(rest, size))

    def _feed_chunks(self, rest: memoryview) -> int:
        """Parse chunks up to where they may end, and return the bytes that these are. Raises ChunksTooSmall."""
        progress, size = self.progress, self._end(rest)
        progress.received += size
        received = progress.received
        self.parser.feed_data(self._taken(rest, size))
        if received - self._body_bytes > self._limits.head_bytes + _FRAMING * self._body_bytes:
            raise ChunksTooSmall(_FRAMING)
        return size

    def _taken(self, rest: memoryview, size: int) -> memoryview:
        """Return the first `size` bytes of the rest, and take them off it."""
        if size < len(rest):
            self._rest = rest[size:]
            return rest[:size]
        self._rest = _NOTHING
        if self._later:
            self._rest, self._later = memoryview(bytes(self._later)), bytearray()
        return rest

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
            self._flow.pause()
        elif self._flow.is_paused:
            self._flow.is_paused = False
            if self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT:
                self.flow.resume_reading()

    def _refuse(self, error: EspalierError) -> None:
        """Answer with `error`, and close."""
        self._all.refused(error.limit)
        self._reject(wire_codes(error).http, sentence(error))

    def _refuse_syntax(self, error: httptools.HttpParserError) -> None:
        if isinstance(error.__context__, EspalierError):
            self._refuse(error.__context__)
            return
        self._all.say("A request is not HTTP/1.1 that can be read; more of them are not told of for some seconds.")
        self.send_400_response(f"The request is not HTTP/1.1 that can be read: {error}.")

    def _reject(self, status: int, text: str) -> None:
        """Give up the request, say why if nothing else has been said, and close when the client has had time to read it."""
        self._forget_rest()
        cycle, is_late = self.cycle, self.progress.phase is _BODY
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
        self.progress.enter(_LINGER, self._all.now)
        self.transport.write_eof()

    def _forget_rest(self) -> None:
        self._rest = _NOTHING
        self._later = bytearray()


class _PausableFlow(FlowControl):
    """Reads nothing while it is paused, whoever wants to go on."""

    is_paused = False

    def pause(self) -> None:
        """Read nothing until `is_paused` is taken back."""
        self.is_paused = True
        self.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless it is paused."""
        if not self.is_paused:
            super().resume_reading()
