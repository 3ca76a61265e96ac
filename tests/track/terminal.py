"""A program in a pseudo-terminal, and what a person would see of it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_PART = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|([\r\n\x07])|([^\x1b\r\n\x07]+)")


class Screen:
    """Rows of letters, of which those that scrolled out are kept; it obeys what our view writes and nothing else."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows: list[str] = [""]
        self.row = self.column = 0
        self.cursor = True
        self.styles: set[str] = set()
        self.wrapped = 0  # lines that had no room

    def feed(self, text: str) -> None:
        """Take what a program wrote."""
        place = 0
        while place < len(text):
            part = _PART.match(text, place)
            assert part, f"not obeyed here: {text[place : place + 20]!r}"
            place = part.end()
            private, number, command, control, letters = part.groups()
            if letters:
                self._write(letters)
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self._down()
            elif command == "A":
                self.row -= int(number or 1)
            elif command == "K":
                self.rows[self.row] = "" if number == "2" else self.rows[self.row][: self.column]
            elif command == "m":
                self.styles.update(number.split(";"))
            elif private and number == "25":
                self.cursor = command == "h"
            else:
                assert control == "\x07", f"not obeyed here: {part[0]!r}"

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")

    def _write(self, letters: str) -> None:
        for letter in letters:
            if self.column == self.columns:
                self.wrapped += 1
                self.column = 0
                self._down()
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + letter + row[self.column + 1 :]
            self.column += 1

    @property
    def text(self) -> str:
        """Return all rows."""
        return "\n".join(row.rstrip() for row in self.rows)


class Session:
    """A program in a terminal of its own, which Ctrl-C reaches as a person's does."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        term: str = "xterm",
        folder: Path = REPOSITORY,
        **env: str,
    ) -> None:
        self.columns = columns
        self.output: list[tuple[float, bytes]] = []  # what was written, and when
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        settings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=settings | {"TERM": term, "PYTHONUTF8": "1", "PYTHONPATH": str(REPOSITORY)} | env,
            preexec_fn=take_terminal,
        )
        os.close(slave)

    def read(self, until: Callable[["Session"], bool] = lambda session: False, seconds: float = 120) -> None:
        """Read until something is seen, or the program ends."""
        end = time.monotonic() + seconds
        while not until(self):
            assert time.monotonic() < end, f"waited in vain; last: {self.raw[-2000:]!r}"
            if not select.select([self.master], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(self.master, 65536)
            except OSError:  # nobody has the terminal any more
                break
            if not part:
                break
            self.output.append((time.monotonic(), part))

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.master, key)

    def end(self) -> int:
        """Read to the end and return the exit code."""
        self.read()
        os.close(self.master)
        return self.process.wait(timeout=60)

    @property
    def raw(self) -> str:
        """Return all that was written."""
        return b"".join(part for _, part in self.output).decode(errors="replace")

    def screen(self) -> Screen:
        """Return what is to be seen of it."""
        screen = Screen(self.columns)
        screen.feed(re.sub(r"\x1b(\[[\d;?]*)?$", "", self.raw))  # of the last command the rest may be on its way
        return screen
