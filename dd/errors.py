"""The exceptions that users are meant to read."""

from pathlib import Path


class DDError(ValueError):
    """A problem that the user can solve.

    The message is one line: what was expected, what was found, what to do. The command line prints it without a
    traceback and exits with status 2.
    """


class TemporaryError(DDError):
    """A problem that may pass by itself (a broken download): a stage ends with `status`, and a flow tries again."""

    status = 75  # EX_TEMPFAIL of sysexits.h


class Stopped(DDError):  # noqa: N818  (reads as what happened)
    """A signal ended the work after it was saved; the same command goes on. `status`: what a shell reports for it."""

    status = 128 + 15


def install(extra: str) -> str:
    """The command that installs one of this project's extras. `dd` on PyPI is another project."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        return f"pip install -c constraints.txt -e '.[{extra}]' in a clone of this project"
    if root == Path.cwd():
        return f"pip install -c constraints.txt -e '.[{extra}]'"
    return f"pip install -c {root / 'constraints.txt'} -e '{root}[{extra}]'"
