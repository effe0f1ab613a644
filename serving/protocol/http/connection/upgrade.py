"""uvicorn's protocol on httptools, for which a request that asks for another protocol is a request."""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpUpgradePassed(HttpToolsProtocol):
    """Passes over `Upgrade`, as HTTP has it for servers that do not switch protocols (RFC 9110, 7.8).

    httptools stops behind the headers of a request that has it, and takes what follows for another protocol; read on, the request's body
    would be the next request. So such a request is told to a new parser without that header, and the rest of what came after it.
    """

    def head_ended(self) -> None:
        """Hear that a request has begun to be answered; its body may follow."""

    def body_ended(self) -> None:
        """Hear that a request is there."""

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the request will be told again."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.headers = []  # for what follows the body: whether that came in time to be a header, chance would decide
            self.head_ended()

    def on_message_complete(self) -> None:
        """Note the end of the body, unless the request will be told again."""
        if not self.parser.should_upgrade():
            cycle = self.cycle
            cycle.more_body = False
            cycle.message_event.set()
            self.body_ended()

    def parse(self, data: memoryview) -> None:
        """Tell the parser of `data`, which holds no more than one end of a head."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            # As uvicorn has it: whatever follows a request after which the connection ends, that request is answered.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)
            if rest := data[stop.args[0] :]:
                self.parser.feed_data(rest)

    def _head_without_upgrade(self) -> bytes:
        """Return the head that the parser has just read. Raises HttpParserError for CONNECT, which is an upgrade by itself."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])
