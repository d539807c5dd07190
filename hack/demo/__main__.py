"""The demo's story, step by step; every claim it prints was just measured.

Runs on the local cluster of this checkout, or with --context on a cluster of one's own, into which
the chart has been installed. Ends with exit code 1 and one sentence when a claim does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time

from hack.lab.kubectl import Kubectl, KubectlError

from .screen import Screen
from .story import Story, StoryError


def main() -> int:
    """Tell the story once; return the exit code."""
    options = _options()
    screen = Screen()
    started = time.monotonic()
    story = Story(Kubectl(options.namespace, options.context), screen, options.images)
    try:
        story.tell()
    except (StoryError, KubectlError, TimeoutError) as error:
        screen.failure(str(error))
        return 1
    screen.line(f"\nAll of it took {time.monotonic() - started:.0f} s.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--context", help="a kubectl context of your own (default: the local cluster)")
    parser.add_argument("--namespace", default="tenant-backup-demo", help="recreated at the start")
    parser.add_argument("--images", default="localhost/", help="what the images' names begin with")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
