"""`kindred people`: what only whoever runs the installation may do for a person."""

from argparse import Namespace

from infra.clock import server_now
from infra.commands.database import with_database
from infra.db import Database
from infra.secret import load_secret
from infra.settings import Settings
from tenants.accounts.second_step import remove_second_step


@with_database
async def second_step_off(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Take the second step off an account whose owner has lost phone and recovery codes."""
    await remove_second_step(database, arguments.email, secret=load_secret(settings), now=await server_now(database))
    print("kindred: the second step is off; the owner of the address is told by mail.")
    return 0
