"""One evaluation: read, split, learn, ask, measure."""

import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from infra.errors import Invalid
from infra.settings import Settings
from tenants.learned.interactions import ItemVectors
from workers.evaluation.bootstrap import Interval, bootstrap_means, difference, interval
from workers.evaluation.card import Card, Claim, Counts, SliceCard, SplitCard
from workers.evaluation.catalogue import Product, encode_photos, encode_texts, read_catalogue
from workers.evaluation.fit_blend import Moment, Weights, learn_weights, scores_of, source_lists
from workers.evaluation.metrics import catalogue_metrics, hits, ranking_metrics, top_lists
from workers.evaluation.models import BLEND, FRESH, MODELS, available
from workers.evaluation.readers import BadInteractions, Read, read_interactions
from workers.evaluation.setting import Content, Questions, Setting, make_questions, make_setting, now_of
from workers.evaluation.slices import make_slices
from workers.evaluation.splits import CannotSplit, Split, split_leave_last, split_random, split_time
from workers.training.behaviour.blend import blended, unite
from workers.training.behaviour.interactions import Floats, Interactions, Ints, shopper_items

Tell = Callable[[str], None]

BASELINES: Final = ("random", "popularity", "item_knn")
_WINDOWS: Final = 2
"""So many windows before the test the blend is fitted on: one alone may lie in a season of its own."""

_BATCH: Final = 256
_SLICE_DRAWS: Final = 400


class UnknownModel(Invalid):
    """A model was named that there is not, or that the data is not enough for."""

    code = "unknown_model"
    title = "There is no such model"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is evaluated and how. Either `interactions`, or `train` and `test`. `models` None: all that the data is
    enough for; else those named, with the baselines. `share` of the events is the test. `stored`: the vectors of the
    items, which then are not encoded. `title` of the card: by default the name of the file.
    """

    interactions: Path | None = None
    train: Path | None = None
    test: Path | None = None
    items: Path | None = None
    images: Path | None = None
    split: Literal["time", "leave_last", "random"] = "time"
    share: float = 0.2
    seen: Literal["exclude", "include"] = "exclude"
    ks: tuple[int, ...] = (10, 20)
    models: tuple[str, ...] | None = None
    out: Path = Path("evaluation")
    seed: int = 0
    command: str = ""
    title: str = ""
    stored: ItemVectors | None = None


class Data(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything that was read, numbered from 0."""

    split: Split
    shoppers: int
    items: int
    timed: bool
    dropped: dict[str, int]
    products: list[Product | None]
    content: Content
    spaces: dict[str, str]


def evaluate(options: Options, settings: Settings, tell: Tell = lambda _: None) -> Card:
    """Measure and return the card. `tell` hears what is being done. Raises BadInteractions, BadCatalogue, CannotSplit,
    UnknownModel; nothing is written but vectors under `options.out`.
    """
    data = _load(options, settings, tell)
    repeats = options.seen == "include"
    setting = _setting(data, data.split, repeats, options.seed)
    questions = make_questions(setting, data.split.test)
    if not len(questions.rows):
        raise CannotSplit("Nobody with a history is left to ask: no shopper of the test has one before it.")
    if len(questions.rows) == 1:
        raise CannotSplit("A single shopper is left to ask, so nothing can be said of others; give more interactions.")
    names = _chosen(options.models, available(setting))
    weights = _weights(data, repeats, available(setting), options.seed, tell) if BLEND in names else None
    scorers = {}
    fit_s = {}
    needed = set() if weights is None else weights.by_source.keys() - {FRESH}
    for name in MODELS:
        if name in names or name in needed:
            tell(f"learning {name}")
            began = time.perf_counter()
            scorers[name] = MODELS[name].fit(setting)
            fit_s[name] = time.perf_counter() - began
    tell(f"asking {len(questions.rows):,} shoppers")
    shown = [name for name in [*MODELS, BLEND] if name in names]
    lists = _ask(setting, questions, scorers, weights, shown, max(options.ks), options.seed)
    tell("resampling")
    return _card(options, data, setting, questions, lists, weights, fit_s)


def _load(options: Options, settings: Settings, tell: Tell) -> Data:
    paths = [path for path in (options.interactions, options.train, options.test) if path is not None]
    if options.interactions is None and len(paths) != 2:
        raise BadInteractions("A given split needs both --train and --test.")
    tell("reading " + ", ".join(path.name for path in paths))
    reads = read_interactions(paths)
    split = _split(reads, options)
    timed = all(read.timed for read in reads)
    number = {name: place for place, name in enumerate(reads[0].items)}
    dropped: dict[str, int] = {}
    for read in reads:
        for reason, count in read.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    given = read_catalogue(options.items, options.images) if options.items is not None else []
    for product in given:
        number.setdefault(product.id, len(number))
    products: list[Product | None] = [None] * len(number)
    for product in given:
        products[number[product.id]] = product
    content, spaces = _content(given, number, options, settings, tell)
    return Data(
        split=split,
        shoppers=len(reads[0].shoppers),
        items=len(number),
        timed=timed,
        dropped=dropped,
        products=products,
        content=content,
        spaces=spaces,
    )


def _split(reads: Sequence[Read], options: Options) -> Split:
    if len(reads) == 2:
        return Split(kind="given", train=reads[0].log, test=reads[1].log)
    if options.split == "leave_last":
        return split_leave_last(reads[0].log)
    if options.split == "random":
        return split_random(reads[0].log, share=options.share, seed=options.seed)
    if not reads[0].timed:
        raise CannotSplit("The interactions have no times, so they cannot be split by them; say --split random.")
    return split_time(reads[0].log, share=options.share)


def _content(
    given: list[Product], number: dict[str, int], options: Options, settings: Settings, tell: Tell
) -> tuple[Content, dict[str, str]]:
    if not given:
        return Content(), {}
    if options.stored is not None:
        return _stored(options.stored, number)
    cache = options.out / "vectors"
    where = np.array([number[product.id] for product in given])
    spaces = {}

    def placed(rows: Floats) -> Floats:
        whole = np.zeros((len(number), rows.shape[1]), np.float32)
        whole[where] = rows
        return whole

    tell(f"encoding {len(given):,} texts")
    texts, spaces["text"] = encode_texts(given, settings, cache)
    image = None
    if options.images is not None:
        tell("encoding photos")
        photos, spaces["image"] = encode_photos(given, settings, cache)
        image = placed(photos) if photos.any() else None
    return Content(text=placed(texts) if texts.any() else None, image=image), spaces


def _stored(vectors: ItemVectors, number: dict[str, int]) -> tuple[Content, dict[str, str]]:
    """The vectors that serve, of the items that are encoded."""
    known = [at for at, name in enumerate(vectors.ids) if name in number]
    where = np.array([number[vectors.ids[at]] for at in known], np.int64)
    halves = {}
    for kind, rows in (("text", vectors.text), ("image", vectors.image)):
        whole = np.zeros((len(number), rows.shape[1]), np.float32)
        whole[where] = rows[known]
        halves[kind] = whole if whole.any() else None
    content = Content(text=halves["text"], image=halves["image"], text_weight=vectors.text_weight)
    return content, {kind: vectors.spaces[kind] for kind, rows in halves.items() if rows is not None}


def _setting(data: Data, split: Split, repeats: bool, seed: int, *, absent: NDArray[np.bool_] | None = None) -> Setting:
    return make_setting(
        split.train,
        data.shoppers,
        data.items,
        data.content,
        now=now_of(split),
        repeats=repeats,
        timed=data.timed,
        seed=seed,
        absent=absent,
    )


def _chosen(wanted: tuple[str, ...] | None, there: Sequence[str]) -> set[str]:
    if wanted is None:
        return {*there, BLEND}
    for name in wanted:
        if name not in MODELS and name != BLEND:
            raise UnknownModel(f"{name!r} is none of {', '.join([*MODELS, BLEND])}.")
        if name not in there and name != BLEND:
            needs = ", ".join(MODELS[name].needs)
            raise UnknownModel(f"{name} needs {needs}: give --items, --images-dir, or --seen include with times.")
    return {*wanted, *BASELINES}


def _weights(data: Data, repeats: bool, names: Sequence[str], seed: int, tell: Tell) -> Weights:
    """Weights from windows before the test, each split off from what is left as the test was.

    What nobody had met by the end of a window was not on sale in it: the test is asked for items of which each was met
    in the end, and with those of the years after it among its candidates, a window would say that new items are lost.
    """
    train = data.split.train
    moments = []
    for number in range(_WINDOWS if data.split.kind == "time" else 1):
        try:
            if data.split.kind == "time":
                window = split_time(train)
            elif data.split.kind == "leave_last":
                window = split_leave_last(train)
            else:
                window = split_random(train, seed=seed + 1)
        except CannotSplit:
            break
        tell(f"fitting the blend, window {number + 1}")
        # By the events of the training alone; an item of the catalogue that has none there is of the test or later.
        absent = np.bincount(train.item, minlength=data.items) == 0 if window.kind == "time" else None
        setting = _setting(data, window, repeats, seed, absent=absent)
        moments.append(Moment(setting=setting, questions=make_questions(setting, window.test)))
        train = window.train
    return learn_weights(moments, names, seed=seed)


def _ask(
    setting: Setting,
    questions: Questions,
    scorers: dict[str, Callable[..., Floats]],
    weights: Weights | None,
    names: Sequence[str],
    k: int,
    seed: int,
) -> dict[str, Ints]:
    """The k best items by model, int32[b, k]."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Ints]] = {name: [] for name in names}
    mixed = list(weights.by_source) if weights is not None else []
    factors = np.array([weights.by_source[name] for name in mixed]) if weights is not None else np.zeros(0)
    for start in range(0, len(questions.rows), _BATCH):
        scores = scores_of(scorers, setting, questions, start, start + _BATCH)
        for name in names:
            if name != BLEND:
                parts[name].append(top_lists(scores[name], k, rng=rng))
        if BLEND in names:
            union = unite(source_lists(scores, mixed, setting, rng), len(setting.train.items))
            rows = min(_BATCH, len(questions.rows) - start)
            parts[BLEND].append(blended(union, factors, rows, k, seed=seed))
    return {name: np.vstack(part) for name, part in parts.items()}


def _card(
    options: Options,
    data: Data,
    setting: Setting,
    questions: Questions,
    lists: dict[str, Ints],
    weights: Weights | None,
    fit_s: dict[str, float],
) -> Card:
    wanted = questions.wanted.weights
    count = np.diff(wanted.indptr)
    per_shopper = {name: ranking_metrics(hits(ids, wanted), count, options.ks) for name, ids in lists.items()}
    models, claims = _models_and_claims(per_shopper, options, weights)
    degree = setting.degree
    k = 20 if 20 in options.ks else max(options.ks)
    slices = []
    history = np.diff(setting.train.weights.indptr)[questions.rows]
    categories = [product.category if product is not None else None for product in data.products]
    sellers = [product.seller if product is not None else None for product in data.products]
    for part in make_slices(degree, history, wanted, categories, sellers):
        recalls = {name: part.recall(ids[:, :k], wanted) for name, ids in lists.items()}
        shoppers = len(next(iter(recalls.values())))
        if shoppers == 0:
            continue
        columns = np.stack(list(recalls.values()), axis=1)
        means = bootstrap_means(columns, seed=options.seed, draws=_SLICE_DRAWS)
        intervals = {name: interval(columns[:, c].mean(), means[:, c]) for c, name in enumerate(recalls)}
        slices.append(SliceCard(kind=part.kind, name=part.name, k=k, shoppers=shoppers, models=intervals))
    return Card(
        title=options.title or (options.interactions or options.train or Path("interactions")).name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        split=_split_card(data, options),
        repeats="included" if setting.repeats else "excluded",
        counts=_counts(data, setting, questions),
        models=models,
        catalogue={name: catalogue_metrics(ids, degree, data.items) for name, ids in lists.items()},
        slices=slices,
        claims=claims,
        blend=None
        if weights is None
        else {
            "weights": weights.by_source,
            "sources": {name: MODELS[name].serves if name in MODELS else name for name in weights.by_source},
            "behaviour_space": weights.space,
            "validation_shoppers": weights.shoppers,
        },
        about={name: MODELS[name].about if name in MODELS else "all sources by fitted weights" for name in lists},
        fit_s={name: round(seconds, 3) for name, seconds in fit_s.items()},
        code=_versions(data.spaces),
    )


def _models_and_claims(
    per_shopper: dict[str, dict[str, NDArray[np.float64]]], options: Options, weights: Weights | None
) -> tuple[dict[str, dict[str, Interval]], list[Claim]]:
    names = list(per_shopper)
    models: dict[str, dict[str, Interval]] = {name: {} for name in names}
    claims: list[Claim] = []
    for metric in per_shopper[names[0]]:
        columns = np.stack([per_shopper[name][metric] for name in names], axis=1)
        values = columns.mean(axis=0)
        means = bootstrap_means(columns, seed=options.seed)
        for column, name in enumerate(names):
            models[name][metric] = interval(values[column], means[:, column])
        if metric.partition("@")[0] not in {"recall", "ndcg"}:
            continue
        pairs = [(BLEND, name) for name in names if BLEND in names and name != BLEND]
        pairs += [(name, "popularity") for name in names if "popularity" in names and name not in {BLEND, "popularity"}]
        for model, against in pairs:
            a, b = names.index(model), names.index(against)
            found = difference(values[a], values[b], means[:, a], means[:, b])
            claims.append(Claim(metric=metric, model=model, against=against, difference=found))
    return models, claims


def _split_card(data: Data, options: Options) -> SplitCard:
    def day(log: Interactions, pick: Callable[[NDArray[np.int64]], np.int64]) -> str | None:
        if not data.timed or not len(log):
            return None
        return datetime.fromtimestamp(int(pick(log.ts)), UTC).isoformat()

    split = data.split
    return SplitCard(
        kind=split.kind,
        share=options.share if split.kind in {"time", "random"} else None,
        train_from=day(split.train, np.min),
        train_to=day(split.train, np.max),
        test_from=day(split.test, np.min),
        test_to=day(split.test, np.max),
    )


def _counts(data: Data, setting: Setting, questions: Questions) -> Counts:
    asked = shopper_items(data.split.test, items=setting.train.items, shoppers=setting.train.shoppers)
    history = np.diff(setting.train.weights.indptr)
    return Counts(
        events_train=len(data.split.train),
        events_test=len(data.split.test),
        shoppers_train=int((history > 0).sum()),
        shoppers_asked=len(questions.rows),
        shoppers_without_history=int(((np.diff(asked.weights.indptr) > 0) & (history == 0)).sum()),
        items_train=int((setting.degree > 0).sum()),
        candidates=data.items,
        items_asked_for=len(np.unique(questions.wanted.weights.indices)),
        dropped=data.dropped,
    )


def _versions(spaces: dict[str, str]) -> dict[str, str]:
    found = {"python": platform.python_version(), **{f"{kind} space": name for kind, name in spaces.items()}}
    for package in ("kindred", "numpy", "scipy", "implicit"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
