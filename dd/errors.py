"""The one exception that users are meant to read."""


class DDError(ValueError):
    """A problem that the user can solve.

    The message is one line: what was expected, what was found, what to do. The command line prints it without a
    traceback and exits with status 2.
    """
