"""What it looks like when the database cannot be reached, and how long what was known before may still be served."""

from typing import Final

import asyncpg
import sqlalchemy.exc

STANDBY_S: Final = 60.0
"""So long after the last look at the changes a process serves what it knew then, where the database is away."""

AWAY: Final = (
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that died in the middle of a statement
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
)
"""The errors that say so; nothing was answered, and the same request may succeed in a second."""
