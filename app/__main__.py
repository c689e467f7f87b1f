"""The `greenroom` command.

Kept free of other imports: a spawned worker imports this module again as its main module.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from app.loading import uncollected

    with uncollected():
        from app.cli import app

    app()


if __name__ == "__main__":
    main()
