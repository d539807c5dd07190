"""What the demo prints: steps, commands as a user would type them, and their real output."""

from __future__ import annotations

import sys
import time

from hack.lab.kubectl import Kubectl


class Screen:
    """Writes to standard output; colours only on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty()
        self._started = time.monotonic()
        self._step = 0

    def step(self, title: str) -> None:
        """Begin a numbered step."""
        self._step += 1
        self.line("")
        self.line(
            self._paint("1;36", f"[{self._step}] {title}") + f"   ({time.monotonic() - self._started:.0f} s)"
        )

    def line(self, text: str) -> None:
        """Print one line at once."""
        print(text, flush=True)

    def good(self, text: str) -> None:
        """Print something that was just proven."""
        self.line("  " + self._paint("32", "✔ ") + text)

    def failure(self, text: str) -> None:
        """Print why the demo ends here."""
        self.line(self._paint("1;31", f"\nThe demo ends here: {text}"))

    def command(self, kubectl: Kubectl, *arguments: str) -> str:
        """Show a kubectl command and its output; return the output."""
        self.line(self._paint("2", f"  $ kubectl {' '.join(_quoted(argument) for argument in arguments)}"))
        output = kubectl(*arguments)
        self.line("\n".join("    " + line for line in output.rstrip().splitlines()))
        return output

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


def _quoted(argument: str) -> str:
    return f"'{argument}'" if any(character in argument for character in ' {"*') else argument
