"""`kindred evaluate`: from the arguments to card.json, card.html and a table."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from infra.errors import Invalid
from infra.settings import Settings
from tenants.learned.interactions import ItemVectors
from workers.evaluation.card import Card, encode_card
from workers.evaluation.page import render_page
from workers.evaluation.run import Options, evaluate


class BadEvaluation(Invalid):
    """The options of an evaluation contradict each other or are out of range."""

    code = "bad_evaluation"
    title = "The evaluation cannot be run so"


def options_of(arguments: argparse.Namespace, command: Sequence[str] = ()) -> Options:
    """The options that the arguments mean; raises BadEvaluation."""
    given = (arguments.interactions, arguments.train, arguments.test)
    if (arguments.interactions is None) == (arguments.train is None and arguments.test is None):
        raise BadEvaluation("Give --tenant NAME, or --interactions FILE, or --train FILE and --test FILE.")
    if arguments.interactions is None and None in (arguments.train, arguments.test):
        raise BadEvaluation("--train and --test go together.")
    for path in (*given, arguments.items):
        if path is not None and not path.is_file():
            raise BadEvaluation(f"There is no file {path}.")
    if arguments.images_dir is not None and (arguments.items is None or not arguments.images_dir.is_dir()):
        raise BadEvaluation("--images-dir names a folder, and the photos in it are named by --items.")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise BadEvaluation(f"--out names a folder, and {arguments.out} is a file.")
    try:
        ks = tuple(sorted({int(k) for k in arguments.k.split(",")}))
    except ValueError:
        raise BadEvaluation(f"--k takes whole numbers with commas, not {arguments.k!r}.") from None
    if not ks or ks[0] < 1 or ks[-1] > 200:
        raise BadEvaluation("--k takes numbers of 1 to 200.")
    if not 0 < arguments.test_share < 1:
        raise BadEvaluation("--test-share is above 0 and below 1.")
    names = tuple(name.strip() for name in arguments.models.split(",") if name.strip())
    return Options(
        interactions=arguments.interactions,
        train=arguments.train,
        test=arguments.test,
        items=arguments.items,
        images=arguments.images_dir,
        split=arguments.split,
        share=arguments.test_share,
        seen=arguments.seen,
        ks=ks,
        models=None if names in {("all",), ()} else names,
        out=arguments.out,
        seed=arguments.seed,
        command=_shown(command),
        title=arguments.tenant or "",
    )


def _shown(command: Sequence[str]) -> str:
    """The command without what is of this machine: folders, and the folder of the local data."""
    words = list(command)
    if "--data-dir" in words[:-1]:
        place = words.index("--data-dir")
        del words[place : place + 2]
    return shlex.join(["kindred", *(Path(word).name if "/" in word else word for word in words)])


def run_command(
    settings: Settings,
    arguments: argparse.Namespace,
    console: Console,
    command: Sequence[str] = (),
    *,
    stored: ItemVectors | None = None,
) -> int:
    """Evaluate, write card.json and card.html, print the table; the exit status. `stored` are the vectors of the items,
    where they need not be encoded.
    """
    options = msgspec.structs.replace(options_of(arguments, command), stored=stored)
    with console.status("reading") as status:
        card = evaluate(options, settings, status.update)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "card.json").write_bytes(encode_card(card))
    (options.out / "card.html").write_text(render_page(card), encoding="utf-8")
    _print(card, options, console)
    return 0


def _print(card: Card, options: Options, console: Console) -> None:
    k = 20 if 20 in options.ks else max(options.ks)
    table = Table("model", f"recall@{k}", "95 %", f"ndcg@{k}", "coverage", "novelty", box=None, pad_edge=False)
    for name, metrics in sorted(card.models.items(), key=lambda pair: -pair[1][f"recall@{k}"].value):
        recall, spread = metrics[f"recall@{k}"], card.catalogue[name]
        table.add_row(
            name,
            f"{recall.value:.4f}",
            f"{recall.low:.4f}–{recall.high:.4f}",
            f"{metrics[f'ndcg@{k}'].value:.4f}",
            f"{spread['coverage']:.2f}",
            f"{spread['novelty']:.1f}",
        )
    counts = card.counts
    console.print(
        f"{card.title}: split {card.split.kind}, repeats {card.repeats}, {counts.shoppers_asked:,} shoppers asked, "
        f"{counts.candidates:,} candidates, full ranking",
        highlight=False,
    )
    console.print(table)
    console.print(f"{options.out / 'card.json'}\n{options.out / 'card.html'}", highlight=False)
