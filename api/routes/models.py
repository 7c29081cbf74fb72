"""/v1/models: what is learned from behaviour, how good it is, what it still needs, and which of it serves."""

from typing import Annotated, Any, Final

from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer
from api.work import writing
from tenants.learned import models
from tenants.learned.models import ModelInfo, ModelNotFound


class ModelList(Struct, frozen=True, kw_only=True):
    """The models, the newest first."""

    models: list[ModelInfo]


class TrainingQueued(Struct, frozen=True, kw_only=True):
    """`GET /v1/jobs/{job_id}` tells how far it is."""

    job_id: str


class Activated(Struct, frozen=True, kw_only=True):
    """The model that answers from now on, and the generation it belongs to."""

    model: int
    generation: Annotated[int, Meta(description="As in `model_version` of an answer.")]


@get("/v1/models", opt=contract(scope="analytics:read", tag="Models", summary="List models", answer=ModelList))
async def list_models(request: AnyRequest) -> Response[bytes]:
    """Metrics, the events each was trained on, and a readiness line for each part: what there is, what it needs, when
    there will be enough, what serves meanwhile.
    """
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await models.list_models(conn, tenant_id)
    return answer(ModelList(models=found))


@post(
    "/v1/models/train",
    status_code=202,
    opt=contract(
        scope="admin",
        tag="Models",
        summary="Train now",
        body_required=False,
        answer=TrainingQueued,
        audit="model.train",
        status=202,
    ),
)
async def train(request: AnyRequest) -> Response[bytes]:
    """Trains all models on the events so far. It also happens by itself, daily and after many events.

    A training that waits already is answered again.
    """
    async with writing(request) as work:
        job_id = str(await models.queue_training(work.conn, work.tenant_id, asked=True))
        await work.note(job_id)
        return work.answered(answer(TrainingQueued(job_id=job_id), status=202))


@post(
    "/v1/models/{model:str}/activate",
    status_code=200,
    opt=contract(
        scope="admin",
        tag="Models",
        summary="Answer from a model",
        body_required=False,
        answer=Activated,
        audit="model.activate",
    ),
)
async def activate(request: AnyRequest, model: FromPath[str]) -> Response[bytes]:
    """Serves from this model and the blend that was fitted with it, at once and everywhere; so a training is undone.

    Its rows must be there: the model that serves and the one before are kept.
    """
    if not model.isascii() or not model.isdigit() or len(model) > 9:
        raise ModelNotFound(f"There is no model {model!r}. They are listed at /v1/models.")
    async with writing(request) as work:
        gen = await models.serve_model(work.conn, work.tenant_id, int(model), reason=f"model {model}, asked for")
        await work.note(str(int(model)), generation=gen)
        return work.answered(answer(Activated(model=int(model), generation=gen)))


ROUTES: Final[tuple[Any, ...]] = (list_models, train, activate)
