"""A server in a process of its own, to be measured from outside."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerProcess:
    """Where a server answers (host:port), and its process."""

    http_address: str
    grpc_address: str
    pid: int

    @property
    def http_host_port(self) -> tuple[str, int]:
        """Return the address of HTTP in its two parts."""
        host, _, port = self.http_address.rpartition(":")
        return host, int(port)

    def resident_bytes(self) -> int:
        """Return the memory that the process has resident now (Linux)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def segment_cache(folder: Path) -> Path:
    """Return where a server that was started `with_cache(folder)` keeps optimised segments."""
    return folder / "espalier" / "segments"


def with_cache(folder: Path) -> Mapping[str, str]:
    """Return the variables by which a server keeps optimised segments below `folder`, not among those that the user serves."""
    return {"XDG_CACHE_HOME": str(folder)}


@contextlib.contextmanager
def served(
    repository: Path, *options: str, environment: Mapping[str, str] | None = None, program: Sequence[str] = ("espalier.cli",)
) -> Iterator[ServerProcess]:
    """Run `espalier serve repository options` on free ports; yield when it is ready, end it afterwards. Raises RuntimeError.

    The embedded engine computes on the CPU, as all in the benchmarks. environment: variables beside those of this process.
    program: a module in place of the command, and its first arguments.
    """
    provider = () if "--engine" in options else ("--provider", "cpu")
    ports = ("--http-port", "0", "--grpc-port", "0")
    command = [sys.executable, "-m", *program, "serve", str(repository), *ports, *provider, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}) as process:
        try:
            assert process.stdout is not None
            line = next((text for text in process.stdout if "Serving on" in text), "")
            found = re.search(r"http://(\S+).*grpc://([\w.:\[\]]+\d)", line)
            if found is None:
                raise RuntimeError("The server did not start.")
            yield ServerProcess(found.group(1), found.group(2), process.pid)
        finally:
            process.terminate()
