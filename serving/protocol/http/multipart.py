"""Files from a form: multipart/form-data, in memory, with limits that hold while it is read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from email.message import Message

from python_multipart import multipart
from python_multipart.exceptions import FormParserError

from contract.errors import InvalidRequest
from serving.errors import ImageFileTooLarge, TooManyFiles
from serving.process.work_pool import Check, no_check


@dataclass(frozen=True)
class File:
    """A file as a form sends it. `name` is what the client calls it, no path of this machine."""

    name: str
    data: bytes


def is_form(content_type: str) -> bool:
    """Whether a body of this Content-Type is a form with files."""
    return content_type.lower().startswith("multipart/")


def read_files(body: bytes, content_type: str, max_files: int, max_file_bytes: int, check: Check = no_check) -> list[File]:
    """Return the files of the form `body` in their order.

    Raises InvalidRequest when it is no form, or has other fields, no files or too many; BodyTooLarge for a file over the limit; and what
    `check` raises, which is called at every piece of a file.
    """
    kind, options = multipart.parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest(
            "A form is sent as multipart/form-data with a boundary; or send one image's bytes themselves as the body."
        )
    collector = _Collector(max_files, max_file_bytes, check)
    try:
        parser = multipart.MultipartParser(options[b"boundary"], collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest("The form is malformed: it is not what its Content-Type says.") from error
    if not collector.ended:
        raise InvalidRequest("The form is truncated: its last boundary is missing.")
    if not collector.files:
        raise InvalidRequest("The form has no files; send at least one image.")
    return collector.files


class _Collector:
    """Follows the parser through the parts of one form."""

    def __init__(self, max_files: int, max_file_bytes: int, check: Check) -> None:
        self.files: list[File] = []
        self.ended = False
        self._max_files = max_files
        self._max_file_bytes = max_file_bytes
        self._check = check
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._data = io.BytesIO()

    def callbacks(self) -> multipart.MultipartCallbacks:
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_part,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.files) == self._max_files:
            raise TooManyFiles(self._max_files)
        self._headers, self._data = {}, io.BytesIO()

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _check_part(self) -> None:
        name = self._file_name()
        if name is None:
            raise InvalidRequest("The form has a field that is no file; give `tasks` and `top_k` in the query: /predict?top_k=3.")
        self._name = name

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._check()
        if self._data.tell() + end - start > self._max_file_bytes:
            raise ImageFileTooLarge(self._max_file_bytes)
        self._data.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self.files.append(File(self._name, self._data.getvalue()))  # no copy
        self._data = io.BytesIO()

    def _finish(self) -> None:
        self.ended = True

    def _file_name(self) -> str | None:
        """Return the name of the part's file, None when it is an ordinary field."""
        header = self._headers.get(b"content-disposition", b"")
        _, options = multipart.parse_options_header(header)
        name = options.get(b"filename")
        return _extended_name(header) if name is None else name.decode("utf-8", "replace")


def _extended_name(header: bytes) -> str | None:
    """Return the name where a client says its encoding or divides it (RFC 2231): a form should not have it, but some do."""
    if b"filename*" not in header.lower():
        return None
    message = Message()
    message["content-disposition"] = header.decode("latin-1").replace("\r", " ").replace("\n", " ")
    return message.get_filename()
