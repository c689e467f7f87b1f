"""A slot's process that writes more than a pipe holds before it says that it is ready."""

from __future__ import annotations

import sys

from app.worker import wire
from app.worker.harness import enter


def main() -> None:
    link = enter(sys.argv[1:])
    for number in range(1000):
        print(f"line {number} " + "." * 100, flush=True)
    link.ready()
    while not isinstance(link.inbox.jobs.get(), wire.Stop):
        pass


if __name__ == "__main__":
    main()
