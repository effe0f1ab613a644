"""HTTP/1.1 on a connection: uvicorn's protocol on httptools, for which a request that asks for another protocol is a request."""

from __future__ import annotations

import json

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """Passes over `Upgrade`, as HTTP has it for servers that do not switch protocols (RFC 9110, 7.8).

    httptools stops behind the headers of a request that has it, and takes what follows for another protocol; read on, the request's body
    would be the next request. So such a request is told to a new parser without that header, and the rest of what came after it.
    """

    def data_received(self, data: bytes) -> None:
        """Parse what has come, in whatever pieces."""
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        try:
            while rest:
                rest = self._parse(rest)
        except httptools.HttpParserError as error:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response(f"The request is not HTTP/1.1 that can be read: {error}.")

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the request will be told again."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.headers = []  # for what follows the body: whether that came in time to be a header, chance would decide

    def on_message_complete(self) -> None:
        """Note the end of the body, unless the request will be told again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of every error, and close."""
        body = json.dumps({"error": msg}).encode()
        head = [*self.server_state.default_headers, (b"content-type", b"application/json"), (b"connection", b"close")]
        lines = [b"%s: %s\r\n" % header for header in (*head, (b"content-length", b"%d" % len(body)))]
        self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", body]))
        self.transport.close()

    def _parse(self, data: memoryview) -> memoryview:
        """Return what the parser has left of `data`."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            # As uvicorn has it: whatever follows a request after which the connection ends, that request is answered.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)
            return data[stop.args[0] :]
        return data[:0]

    def _head_without_upgrade(self) -> bytes:
        """Return the head that the parser has just read. Raises HttpParserError for CONNECT, which is an upgrade by itself."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])
