"""The commands behind `make cluster-up`, `cluster-down`, `cluster-status`, `cluster-load` and `images`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import checks, images, lifecycle
from .say import Problem


def main() -> int:
    """Run one command; a Problem is one sentence for the user, anything else is a bug."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "up":
            lifecycle.up(with_images=not arguments.no_images)
        case "down":
            lifecycle.down()
        case "status":
            return lifecycle.status()
        case "load":
            lifecycle.load(arguments.archive)
        case "tools":
            lifecycle.tools()
        case "packages":
            checks.programs_are_installed(checks.TEST_PROGRAMS)
        case "images" if arguments.push:
            images.push(arguments.push)
        case "images":
            lifecycle.build_and_load_images(for_tests=arguments.for_tests)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack.localcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the cluster, building what is missing")
    up.add_argument("--no-images", action="store_true", help="load none of the images that are built already")
    commands.add_parser("down", help="stop the cluster and remove its state")
    commands.add_parser("status", help="say what runs; exit code 0 when the cluster is healthy")
    commands.add_parser("packages", help="install the Debian packages that tests and bench need")
    commands.add_parser("tools", help="put helm into .local/bin")
    load = commands.add_parser("load", help="load an image archive into the cluster")
    load.add_argument("archive", type=Path)
    build = commands.add_parser("images", help="build the images and load them if the cluster is up")
    build.add_argument("--for-tests", action="store_true", help="also those that only the tests use")
    build.add_argument("--push", metavar="REGISTRY/NAME", help="push operator and runner there instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
