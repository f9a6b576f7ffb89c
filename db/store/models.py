"""Trained models and their thresholds: registered, activated, appended to; nothing is overwritten."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import Refused, Unknown
from db.schema import Activation, Threshold, TrainedModel
from db.store.audit import record
from db.store.connection import Database, now


@dataclass(frozen=True)
class Registration:
    """What a trained model's folder says of itself, for its row. `threshold` is the recommended one, 0 to 1."""

    name: str
    version: str
    folder: str
    architecture: str
    classes: list[str]
    flag_classes: list[str]
    input_size: int
    preprocessing_version: str
    weights_sha256: str
    minimum_age: float | None
    report: dict[str, Any]
    threshold: float
    threshold_why: str


@dataclass(frozen=True)
class ModelView:
    """A registered trained model as the others see it; `threshold` is the one that rules now."""

    id: int
    name: str
    version: str
    folder: str
    architecture: str
    classes: list[str]
    flag_classes: list[str]
    input_size: int
    preprocessing_version: str
    weights_sha256: str
    minimum_age: float | None
    threshold: float
    report: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


def register(db: Database, registration: Registration, *, by: str) -> int:
    """Add a trained model and its recommended threshold; the same name, version and weights again give the same
    row (its folder may have moved). Raises Refused when the name and version belong to other weights."""
    with db.writing() as session:
        wanted = (TrainedModel.name == registration.name, TrainedModel.version == registration.version)
        known = session.scalar(select(TrainedModel).where(*wanted))
        if known is not None:
            return _same_model(known, registration).id
        fields = {k: v for k, v in vars(registration).items() if k not in ("threshold", "threshold_why")}
        model = TrainedModel(**fields, registered_at=now())
        session.add(model)
        session.flush()
        _append_threshold(session, model.id, registration.threshold, why=registration.threshold_why, by=by)
        label = f"model {registration.name} {registration.version}"
        record(session, by, "model_registered", label, {"weights_sha256": registration.weights_sha256})
        return model.id


def activate(db: Database, model_id: int, *, why: str, by: str) -> None:
    """Let new batches run with this model; a batch finishes with the model it started with."""
    with db.writing() as session:
        session.add(Activation(trained_model_id=model_id, why=why, by=by, at=now()))
        record(session, by, "model_activated", f"model {model_id}", {"why": why})


def active(db: Database) -> ModelView:
    """The trained model that new batches run with. Raises Unknown when none was activated."""
    with db.reading() as session:
        newest = select(Activation.trained_model_id).order_by(Activation.id.desc()).limit(1)
        model_id = session.scalar(newest)
        if model_id is None:
            raise Unknown("no trained model is active: run `nightread init`")
        return view(session, model_id)


def registered(db: Database) -> list[ModelView]:
    """Every registered trained model, in the order of registration."""
    with db.reading() as session:
        return [view(session, model_id) for model_id in session.scalars(select(TrainedModel.id)).all()]


def get(db: Database, model_id: int) -> ModelView:
    """One trained model by id. Raises Unknown."""
    with db.reading() as session:
        return view(session, model_id)


def view(session: Session, model_id: int) -> ModelView:
    """One trained model with the threshold that rules, inside a running transaction."""
    model = session.get(TrainedModel, model_id)
    if model is None:
        raise Unknown(f"no trained model {model_id}")
    names = ModelView.__dataclass_fields__.keys() - {"threshold"}
    return ModelView(**{name: getattr(model, name) for name in names}, threshold=ruling_threshold(session, model_id))


def ruling_threshold(session: Session, model_id: int) -> float:
    """The newest threshold of a model, 0 to 1."""
    newest = select(Threshold.value).where(Threshold.trained_model_id == model_id)
    return session.scalars(newest.order_by(Threshold.id.desc()).limit(1)).one()


def _same_model(known: TrainedModel, registration: Registration) -> TrainedModel:
    if known.weights_sha256 != registration.weights_sha256:
        label = f"{registration.name} {registration.version}"
        raise Refused(f"{label} is registered with other weights: give the new one another version")
    known.folder = registration.folder
    return known


def _append_threshold(session: Session, model_id: int, value: float, *, why: str, by: str) -> None:
    session.add(Threshold(trained_model_id=model_id, value=value, why=why, by=by, at=now()))
