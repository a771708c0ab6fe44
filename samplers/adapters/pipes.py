"""A program at the other end of two pipes: lines and numbers, neither of which may be waited for
longer than `patience`."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO, cast

import numpy as np

from tiltbench.samplers.adapters.density import Misuse

LINE = 256  # bytes of a line at most
END = 2.0  # seconds in which a program that has closed its output has an exit code
GRACE = 0.5  # seconds that a program has to end by itself, once nobody listens


class Program:
    """A running program.  Everything that it does against the agreement raises Misuse: it cannot be
    started, ends early, says nothing for `patience` seconds, or takes nothing for as long."""

    def __init__(self, name: str, argv: Sequence[str], patience: float) -> None:
        self.name, self.patience = name, patience
        self._errors = cast(IO[bytes], tempfile.TemporaryFile())
        try:
            self._process = subprocess.Popen(
                list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise Misuse(
                f"{name} cannot start {argv[0]!r} ({error.strerror}); give the command as a list "
                "of words, the first a program that this machine has"
            ) from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._read = bytearray()

    def read_line(self) -> str:
        """The next line, without its end.  Raises EOFError where the program has ended after whole
        messages, with exit code 0."""
        while b"\n" not in self._read:
            if len(self._read) > LINE:
                raise self.garbage(bytes(self._read[:40]))
            if not self._more("a line"):
                if self._read or self._code() != 0:
                    raise self._ended("in the midst of its work")
                raise EOFError
        end = self._read.index(b"\n")
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        try:
            return line.decode("ascii").strip()
        except UnicodeDecodeError:
            raise self.garbage(line[:40]) from None

    def numbers(self, *shape: int) -> np.ndarray:
        """The next float64 numbers, little-endian, in rows."""
        wanted = 8 * int(np.prod(shape))
        while len(self._read) < wanted:
            if not self._more(f"{wanted} bytes of numbers"):
                raise self._ended(
                    f"after {len(self._read)} of {wanted} bytes, float64 numbers of shape {shape}"
                )
        values = np.frombuffer(bytes(self._read[:wanted]), "<f8").reshape(shape)
        del self._read[:wanted]
        return values

    def say(self, line: str, *numbers: np.ndarray) -> None:
        """A line, and float64 numbers after it."""
        parts = [np.ascontiguousarray(each, "<f8").tobytes() for each in numbers]
        rest = memoryview(line.encode("ascii") + b"\n" + b"".join(parts))
        while rest:
            self._wait(self._in, selectors.EVENT_WRITE, "reads nothing of what it was sent")
            try:
                rest = rest[os.write(self._in, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._ended("while it was being answered") from None

    def close(self) -> None:
        """Ends the program: it is told by the end of its input, then killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def garbage(self, given: bytes | str) -> Misuse:
        written = given.encode("ascii") if isinstance(given, str) else given
        return Misuse(
            f"{self.name} wrote {repr(written)[1:]} where a line `value N`, `grad N`, `draws N`, "
            "`chains C N`, `weighted N` or `done` was due; let it print all else to its standard "
            "error"
        )

    def _more(self, what: str) -> bool:
        """Reads on; False at the end of what the program writes."""
        while True:
            self._wait(self._out, selectors.EVENT_READ, f"wrote nothing where {what} was due")
            try:
                received = os.read(self._out, 1 << 20)
            except BlockingIOError:
                continue
            self._read += received
            return bool(received)

    def _wait(self, file: int, event: int, idle: str) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(file, event)
            if not selector.select(self.patience):
                raise Misuse(
                    f"{self.name} {idle} for {self.patience:g} s, and was ended; let it flush what "
                    f"it writes, or raise patience{self._last_error_line()}"
                )

    def _code(self) -> int:
        """Its exit code; it has closed its output, and has a moment to end."""
        until = time.monotonic() + END
        while (code := self._process.poll()) is None and time.monotonic() < until:
            time.sleep(0.01)
        return 0 if code is None else code

    def _ended(self, when: str) -> Misuse:
        code = self._code()
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return Misuse(f"{self.name} ended ({how}) {when}{self._last_error_line()}")

    def _last_error_line(self) -> str:
        """The last line of its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        written = [" ".join(line.split()) for line in lines if line.strip()]
        return (
            f"; it said: {written[-1][:300]}"
            if written
            else "; it said nothing on its standard error"
        )
