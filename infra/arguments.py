"""The arguments of `kindred`: its commands, and what each of them takes."""

import argparse
from pathlib import Path
from typing import Any


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options; `run` names the module of infra.commands that does it, and its function."""
    parser = argparse.ArgumentParser(
        prog="kindred", description="Product recommendations from the texts and photos of a feed."
    )
    parser.add_argument("--data-dir", type=Path, default=None, help="folder of the local data (KINDRED_DATA_DIR)")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: str, about: str, *, under: Any = None) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = (under or commands).add_parser(name, help=about, description=about)
        made.add_argument("--data-dir", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        made.set_defaults(run=run)
        return made

    def family(name: str, about: str) -> Any:
        return commands.add_parser(name, help=about, description=about).add_subparsers(dest="action", required=True)

    up = command("up", "up:run", "Run everything on this machine: database, API and workers.")
    up.add_argument("--host", help="address to listen on (KINDRED_HOST)")
    up.add_argument("--port", type=int, help="port to listen on (KINDRED_PORT)")
    up.add_argument("--demo", action="store_true", help="load the demo shop when ready")
    up.add_argument("--data", type=Path, help="load this folder (items.jsonl and its photos) instead of the demo shop")

    demo = command("demo", "demo:run", "Load the demo shop into a running server.")
    demo.add_argument("--server", help="address of the server (default: this machine's)")
    demo.add_argument("--data", type=Path, help="load this folder (items.jsonl and its photos) instead")

    migrate = command("migrate", "migrate:run", "Bring the database to this version.")
    migrate.add_argument("--admin-url", help="an administrator's address; makes the roles and the database first")

    tenants = family("tenants", "Shops of this installation.")
    create = command("create", "tenants:create", "Make a shop and its first keys.", under=tenants)
    create.add_argument("name")
    create.add_argument("--plan", default="free", help="heeded with KINDRED_ENTITLEMENTS=plans (default: free)")
    create.add_argument("--currency", default="USD", help="ISO 4217 code that prices are in by default")
    create.add_argument("--json", action="store_true", help="one line of JSON")
    listed = command("list", "tenants:list_", "List the shops.", under=tenants)
    listed.add_argument("--deleted", action="store_true", help="those that were deleted and can be had back")
    plan = command("plan", "tenants:plan", "Let another plan hold for a shop.", under=tenants)
    plan.add_argument("name", help="name or id")
    plan.add_argument("plan", help="free, pro or enterprise (docs/limits.md)")
    delete = command("delete", "tenants:delete", "Delete a shop with all it has.", under=tenants)
    delete.add_argument("name", help="name or id")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    undelete = command("undelete", "tenants:undelete", "Have a deleted shop back, within its grace.", under=tenants)
    undelete.add_argument("name", help="name or id")
    undelete.add_argument("--name", dest="as_name", help="another name than it had")
    export = command("export", "bundles:export", "Write all that a shop has into one file.", under=tenants)
    export.add_argument("name", help="name or id")
    export.add_argument("--out", type=Path, required=True, help="the file to write")
    restore = command("restore", "bundles:restore", "Make a shop of an exported file.", under=tenants)
    restore.add_argument("file", type=Path)
    restore.add_argument("--name", dest="as_name", help="another name than the file says")
    restore.add_argument("--plan", default="free")
    restore.add_argument("--json", action="store_true", help="one line of JSON")
    about = "What was erased of a shop, signed."
    certificate = tenants.add_parser("certificate", help=about, description=about)
    certificates = certificate.add_subparsers(dest="of_certificate", required=True)
    shown = command("show", "tenants:show_certificate", "Print a certificate.", under=certificates)
    shown.add_argument("tenant", help="id of the erased shop")
    shown.add_argument("--out", type=Path, help="a file to write it to")
    verified = command("verify", "tenants:verify_certificate", "Whether a certificate holds.", under=certificates)
    verified.add_argument("file", type=Path)

    people = family("people", "People with an account.")
    off = command("second-step-off", "people:second_step_off", "Take the second step off an account.", under=people)
    off.add_argument("email", help="the account's e-mail address")

    erasures = family("erasures", "People who were erased.")
    command("replay", "erasures:replay", "Erase again whoever a restored backup has brought back.", under=erasures)

    audit = family("audit", "Who changed what in a shop.")
    verify = command("verify", "audit:verify", "Check the audit log against its seals.", under=audit)
    verify.add_argument("tenant", nargs="?", help="name or id of the shop")
    verify.add_argument("--file", type=Path, help="check this export instead; needs no database")
    export = command("export", "audit:export", "Write the whole audit log, with its seals.", under=audit)
    export.add_argument("tenant", help="name or id of the shop")
    export.add_argument("--out", type=Path, help="the file (default: standard output)")

    keys = family("keys", "API keys of a shop.")
    create = command("create", "keys:create", "Make a key; it is shown once.", under=keys)
    create.add_argument("tenant", help="name or id of the shop")
    create.add_argument("--name", default="unnamed")
    create.add_argument("--kind", choices=("secret", "publishable"), default="secret")
    create.add_argument(
        "--scope", action="append", default=[], help="a scope; may be repeated (default: all of its kind)"
    )
    create.add_argument(
        "--origin", action="append", default=[], help="an allowed origin of a publishable key; may be repeated"
    )
    create.add_argument(
        "--placement", action="append", default=[], help="a placement that it is narrowed to; may be repeated"
    )
    create.add_argument("--json", action="store_true", help="one line of JSON")
    listed = command("list", "keys:list_", "List the keys.", under=keys)
    listed.add_argument("tenant", help="name or id of the shop")
    rotate = command("rotate", "keys:rotate", "Make a key of the same name, to replace another.", under=keys)
    rotate.add_argument("tenant", help="name or id of the shop")
    rotate.add_argument("key_id")
    rotate.add_argument("--overlap-s", type=int, default=86_400, help="seconds that the old key still works")
    check = command("check", "keys:check", "Tell without the database what a string says as a key.", under=keys)
    check.add_argument("key", help="the string; `-` looks for keys in a text on standard input")
    token = command("visitor-token", "keys:visitor_token", "Print a visitor token for trying.", under=keys)
    token.add_argument("tenant", help="name or id of the shop")
    whom = token.add_mutually_exclusive_group(required=True)
    whom.add_argument("--user", help="the user that it speaks for")
    whom.add_argument("--visitor", help="the visitor that it speaks for")
    token.add_argument("--placement", action="append", default=[], help="an allowed placement; may be repeated")
    token.add_argument("--filter", help="a filter in JSON that every list is narrowed to")
    token.add_argument("--hours", type=float, default=1.0, help="how long it lives, 24 at most")
    revoke = command("revoke", "keys:revoke", "Revoke a key.", under=keys)
    revoke.add_argument("tenant", help="name or id of the shop")
    revoke.add_argument("key_id")

    secret = family("secret", "The installation's secret (docs/secrets.md).")
    command("status", "secret:status", "What still depends on which secret.", under=secret)
    rotate = command("rotate", "secret:rotate", "The next step of changing it.", under=secret)
    rotate.add_argument("--at-once", action="store_true", help="both steps, where every process is restarted together")
    forget = command("forget", "secret:forget", "Believe the old secrets no longer.", under=secret)
    forget.add_argument("--yes", action="store_true", help="although something still depends on them")

    feed = command("import", "imports:run", "Import a feed into a running server.")
    feed.add_argument("file", type=Path)
    feed.add_argument("--key", required=True, help="a secret key with catalog:write")
    feed.add_argument("--server", help="address of the server (default: this machine's)")
    formats = ("auto", "ndjson", "csv", "google_merchant", "shopify_csv", "woocommerce_csv", "yml")
    feed.add_argument("--format", choices=formats, default="auto")
    feed.add_argument("--images-dir", type=Path, help="folder of the photos that the feed names by file")
    feed.add_argument("--mode", choices=("incremental", "full"), default="incremental")

    measure = command("evaluate", "evaluate:run", "Measure the recommendations of every model on interactions.")
    measure.add_argument("--tenant", help="name or id of a shop: its own events and items")
    measure.add_argument("--interactions", type=Path, help="a file to be split; its layout is found by looking")
    measure.add_argument("--train", type=Path, help="the first half of a split made by others")
    measure.add_argument("--test", type=Path, help="its second half")
    measure.add_argument("--items", type=Path, help="the products, as items.jsonl: adds the models of text")
    measure.add_argument("--images-dir", type=Path, help="folder of the photos that --items names")
    measure.add_argument(
        "--split", choices=("time", "leave_last", "random"), default="time", help="time: one moment for all shoppers"
    )
    measure.add_argument("--test-share", type=float, default=0.2, help="of the events, for time and random")
    measure.add_argument(
        "--seen", choices=("exclude", "include"), default="exclude", help="whether items met before may come again"
    )
    measure.add_argument("--k", default="10,20", help="lengths of the lists")
    measure.add_argument("--models", default="all", help="names, with commas; the baselines are always there")
    measure.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of card.json and card.html")
    measure.add_argument("--seed", type=int, default=0)

    models = family("models", "Model packs.")
    command("list", "models:list_", "List the packs that Kindred knows.", under=models)
    fetch = command("fetch", "models:fetch", "Fetch or build a pack.", under=models)
    fetch.add_argument("pack", help="a name, or s3://bucket/prefix")
    use = command("use", "models:use", "Encode with a pack from the workers' next start.", under=models)
    use.add_argument("pack", help="a name, a folder, or s3://bucket/prefix")
    use.add_argument("--only", choices=("text", "image"), help="use only this half of a pack that has both")
    verify = command("verify", "models:verify", "Check every file of a pack against its sha256.", under=models)
    verify.add_argument("pack", nargs="*", help="names or folders (default: those in use)")

    command("doctor", "doctor:run", "Look the installation over, and say how to mend each thing.")
    return parser
