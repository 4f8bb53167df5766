"""`python -m pipeline.servers.prefect_server ...` is `prefect ...` with a server that many clients may ask at once.

Prefect begins most SQLite transactions as DEFERRED: one that first reads and then writes fails at once ("database is
locked", HTTP 503) if another has written in between, whatever the timeout. Here they begin as IMMEDIATE, which waits
for its turn. Of twenty runs created at the same moment all are then accepted
(tests/pipeline/servers/test_prefect_server.py).
"""

from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect.server.database.configurations import AioSqliteConfiguration

_begin = AioSqliteConfiguration.begin_transaction


def _begin_immediate(
    self: AioSqliteConfiguration, session: Any, with_for_update: bool = False
) -> AbstractAsyncContextManager[Any]:
    return _begin(self, session, with_for_update=True)


def main() -> None:
    """Prefect's own command line."""
    from prefect.cli import app

    AioSqliteConfiguration.begin_transaction = _begin_immediate  # type: ignore[method-assign,assignment]
    app()


if __name__ == "__main__":
    main()
