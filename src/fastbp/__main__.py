"""The command line: ``python -m fastbp info`` and ``python -m fastbp demo``."""

from __future__ import annotations

import sys

USAGE = """\
usage: python -m fastbp COMMAND [options]

commands:
  info    what runs here and why: version, instruction set, threads
  demo    train a classifier of handwritten digits; --help shows its options
"""


def main(arguments: list[str]) -> int:
    """Run the command that `arguments` names and return the exit status; 2 where there is none of that name."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if command == "info" and not rest:
        import fastbp

        text = fastbp.show_config()
        if text is not None:
            print(text)
        return 0
    if command == "demo":
        from .demo import main as demo

        return demo(rest)
    complaint = f"fastbp: no such command: {' '.join(arguments)}\n\n" if arguments else ""
    print(complaint + USAGE, end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
