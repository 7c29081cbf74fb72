"""Made-up requests, one by one and as the links of the document lead on; every answer is held to the document."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

import httpx
import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import Bundle, rule
from litestar import Litestar
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.generation.stateful.state_machine import StepInput
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ensure_resource_availability,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    use_after_free,
)
from schemathesis.specs.openapi.stateful import _extracts_value

from api.app import ROUTES
from api.openapi import document

DOCUMENT: Final = document(Litestar(ROUTES, openapi_config=None))
_CONFORMANCE: Final[tuple[Any, ...]] = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
# Two of schemathesis's checks look only at requests that it makes in another mode: `unsupported_method`
# (test_openapi.py asks each path itself) and `missing_required_header` (none is required but the key, which
# `ignored_auth` takes away). `positive_data_acceptance` is left out: a schema cannot say that a field of a filter
# exists, or that a range ends after it begins.
_CHECKS: Final[tuple[Any, ...]] = (
    *_CONFORMANCE,
    use_after_free,
    ensure_resource_availability,
    ignored_auth,
    negative_data_rejection,
)
_LONGEST_URL: Final = 60_000
"""Beyond 64 KB of address the server itself refuses, before the application is asked."""
_TEXTS: Final = ("application/x-ndjson", "text/csv")
_BAD_ROWS: Final = re.compile(rb'"rejected":[1-9]|"results":\[.*"status":422', re.DOTALL)
_NAMED_BY_CLIENTS: Final = ("{item_id}", "{placement_id}", "{segment_id}", "{user_id}")
_FURNITURE: Final = (
    "create_key",
    "put_item",
    "put_user",
    "put_placement",
    "put_segment",
    "create_webhook",
    "create_visitor_secret",
    "post_events",
)
"""What each shop has from the beginning, as the document shows it, so that its lists lead somewhere; the first of its
keys is then not the one that walks."""


@dataclass
class Tally:
    """What the walks did."""

    requests: Counter[str] = field(default_factory=Counter)
    """By operation, as `GET /v1/items`."""
    statuses: Counter[int] = field(default_factory=Counter)
    links: frozenset[str] = frozenset()
    """All that there are to follow."""
    followed: Counter[str] = field(default_factory=Counter)
    """Those of which something was taken."""
    guarded: set[str] = field(default_factory=set)
    """Operations that were seen to ask for a key; of each that is seen once."""
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """By operation and kind, as `ServerError`: the first request that showed it, and the answer."""

    def check(self, response: Any, case: Any, checks: Iterable[Any], **known: Any) -> bool:
        """Count an answer and note what is wrong with it, so that no failure hides the next; whether nothing is."""
        self.requests[case.operation.label] += 1
        self.statuses[response.status_code] += 1
        if len(response.request.url or "") >= _LONGEST_URL:
            return True
        try:
            case.validate_response(response, checks=list(checks), **known)
        except FailureGroup as group:
            for failure in group.exceptions:
                request = f"{case.as_curl_command()}\n{response.status_code} {response.content[:500]!r}"
                kind = (case.operation.label, type(failure).__name__)
                self.failures.setdefault(kind, f"{failure.title}: {failure.message}\n{request}")
            return False
        return True

    def told(self) -> str:
        """All failures, for people."""
        return "\n\n".join(f"{operation}: {text}" for (operation, _), text in self.failures.items())


def load() -> Any:
    """The document as schemathesis has it."""
    return schemathesis.openapi.from_dict(DOCUMENT)


def ask(
    tally: Tally,
    url: str,
    key: str,
    operation: Any,
    mode: GenerationMode,
    *,
    examples: int,
    encoder: bool,
    seed: int = 0,
) -> None:
    """Ask one operation alone, so many times, with whatever may or may not be sent to it. `encoder`: as in `walks`."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"})
        checks = (*_CONFORMANCE, negative_data_rejection)
        tally.check(answer, case, [each for each in checks if not _exempt(each, case, answer, encoder=encoder)])

    call()


def modes(operation: Any) -> list[GenerationMode]:
    """Good and bad; where nothing is sent, nothing can be wrong."""
    told = operation.definition.raw
    if told["parameters"] or "requestBody" in told:
        return [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    return [GenerationMode.POSITIVE]


def walks(tally: Tally, url: str, new_key: Callable[[], str], *, encoder: bool, refusals: bool = True) -> Any:
    """The state machine, for `run`. Each walk has a key by `new_key` of a shop of its own, so that it may revoke and
    delete what it finds. Failures are noted, not raised: one does not hide the next. `encoder`: whether one runs, so
    that no search may answer that there is none. `refusals`: whether all that is bad must be refused."""
    schema = load()
    schema.config.phases.stateful.inference.algorithms = []  # the document's own links, and no guessed ones
    schema.config.generation.update(with_security_parameters=False)
    operations = [result.ok() for result in schema.get_all_operations()]
    led: Any = schema.as_state_machine()
    tally.links = frozenset(link.full_name for each in led._transitions.operations.values() for link in each.outgoing)

    client = httpx.Client(base_url=url, trust_env=False)

    class Walk(led):
        def setup(self) -> None:
            self.headers = {"Authorization": f"Bearer {new_key()}"}
            _furnish(client, self.headers)

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": url, "headers": self.headers}

        def before_call(self, case: Any) -> None:
            # A dry run leads nowhere: nothing is there afterwards. That it answers as told, each operation shows alone.
            if str(case.query.get("dry_run")).lower() == "true":
                del case.query["dry_run"]

        def step(self, input: StepInput) -> Any:
            if input.transition is not None:
                if not _extracts_value(input.transition):
                    return None  # an empty list has no first entry
                if input.is_applied:
                    tally.followed[input.transition.id] += 1
            return super().step(input)

        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **kwargs: Any) -> None:
            checks = [check for check in _CHECKS if not _exempt(check, case, response, encoder=encoder)]
            if case.operation.label in tally.guarded:
                checks.remove(ignored_auth)
            if not refusals and negative_data_rejection in checks:
                checks.remove(negative_data_rejection)
            known = {"headers": self.headers, "transport_kwargs": kwargs, "recorder": self.recorder}
            if tally.check(response, case, checks, **known) and response.status_code < 300:
                tally.guarded.add(case.operation.label)

        @rule(target=Bundle("begun"), case=st.one_of([_cases(each) for each in operations if _begins(each)]))
        def begin(self, case: Any) -> Any:
            first = StepInput.initial(case)
            self.recorder.record_case(case=case)
            self.control.record_step(first, self.recorder)
            return self._step(first)

    # Schemathesis has a rule for each of its beginnings, which are so many that few walks would come far.
    for name in led.root_rules:
        setattr(Walk, name, None)
    return Walk


def run(machine: Any, *, seed: int, walks: int = 8, steps: int = 50) -> None:
    """Walk so many times, from this seed.

    Hypothesis demands that the same choices meet the same answers, and ends a run where they do not. A server has
    clocks and writes some things by and by, so that is no fault of its: what it answered is checked already, and the
    next seed goes on.
    """
    chosen = settings(
        max_examples=walks,
        stateful_step_count=steps,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with suppress(FlakyStrategyDefinition):
        hypothesis.seed(seed)(machine).run(settings=chosen)


def _exempt(check: Any, case: Any, response: Any, *, encoder: bool) -> bool:
    """Whether a check asks something that Kindred promises otherwise.

    What clients name themselves may have been made again since it was deleted, by an import or an event: only what has
    an id of ours is gone for good. A call of many rows names the bad ones and takes the others. What is meant to be bad
    about a text becomes a text by being sent.
    """
    if check is use_after_free:
        return any(name in case.operation.path for name in _NAMED_BY_CLIENTS)
    if check is negative_data_rejection:
        return case.media_type in _TEXTS or _BAD_ROWS.search(response.content) is not None
    return check is not_a_server_error and not encoder and b'"encoder_unavailable"' in response.content


def _begins(operation: Any) -> bool:
    """Whether it needs no id that an answer gave: it has none in its path, or makes what it names there."""
    return operation.path.count("{") == 0 or (operation.method == "put" and operation.path.count("{") == 1)


def _cases(operation: Any) -> st.SearchStrategy[Any]:
    """Of ten, one bad; of the others half as the document shows them, so that walks come beyond the first step."""
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if modes(operation) == [GenerationMode.POSITIVE]:
        return good
    told = operation.definition.raw
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    shown = {"path_parameters": _examples(told, "path"), "query": _examples(told, "query")}
    bodies = [
        {"body": content["example"], "media_type": media_type}
        for media_type, content in told.get("requestBody", {}).get("content", {}).items()
        if "example" in content
    ]
    likely = [operation.as_strategy(**shown, **body) for body in bodies]
    if not bodies and any(shown.values()):
        likely = [operation.as_strategy(**shown)]
    usual = st.one_of(good, st.one_of(likely)) if likely else good
    return st.integers(0, 9).flatmap(lambda drawn: bad if drawn == 0 else usual)


def _examples(told: dict[str, Any], place: str) -> dict[str, Any]:
    return {
        each["name"]: each["schema"]["example"]
        for each in told["parameters"]
        if each["in"] == place and "example" in each["schema"]
    }


def _furnish(client: httpx.Client, headers: dict[str, str]) -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, told in methods.items():
            if told["operationId"] in _FURNITURE:
                address = path.format(**_examples(told, "path"))
                content = told.get("requestBody", {}).get("content", {}).get("application/json", {})
                client.request(method, address, json=content.get("example"), headers=headers).raise_for_status()


def _photo(media_type: str) -> bytes:
    drawn = BytesIO()
    Image.new("RGB", (8, 8), "teal").save(drawn, media_type.removeprefix("image/"))
    return drawn.getvalue()


for _type in ("image/jpeg", "image/png", "image/webp", "image/gif"):
    schemathesis.openapi.media_type(_type, st.one_of(st.just(_photo(_type)), st.binary()))


@schemathesis.serializer(*_TEXTS)
def _as_it_is(_: Any, body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()
