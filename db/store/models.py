"""Trained models: registered, named, activated, retired. What was decided is appended; nothing is overwritten."""

import difflib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.errors import Refused, Unknown
from db.schema import Activation, Chunk, Retirement, Threshold, TrainedModel
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
    registered_at: datetime
    retired_at: datetime | None

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Decision:
    """Something that somebody decided about a trained model."""

    why: str
    by: str
    at: datetime


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


def activate(db: Database, model_id: int, *, why: str, by: str, signed: dict[str, Any] | None = None) -> None:
    """Let new batches run with this model; a batch finishes with the model it started with. `signed` goes on record:
    who signed for a model that would be refused, and against which figures. Raises Refused for a retired model."""
    with db.writing() as session:
        model = _locked(session, model_id)
        if _retirement(session, model_id) is not None:
            raise Refused(f"{model.name} {model.version} is retired: import it under another version to use it again")
        session.add(Activation(trained_model_id=model_id, why=why, by=by, at=now()))
        record(session, by, "model_activated", f"model {model_id}", {"why": why, **(signed or {})})


def retire(db: Database, model_id: int, *, why: str, by: str) -> bool:
    """Let no new batch run with this model any more; batches that started with it finish. False when it was retired
    before. Raises Refused for the active model."""
    with db.writing() as session:
        model = _locked(session, model_id)
        if _retirement(session, model_id) is not None:
            return False
        if _active_id(session) == model_id:
            raise Refused(f"{model.name} {model.version} is active: activate another model first")
        session.add(Retirement(trained_model_id=model_id, why=why, by=by, at=now()))
        record(session, by, "model_retired", f"model {model_id}", {"why": why})
        return True


def active(db: Database) -> ModelView:
    """The trained model that new batches run with. Raises Unknown when none was activated."""
    with db.reading() as session:
        model_id = _active_id(session)
        if model_id is None:
            raise Unknown("no trained model is active: run `nightread init`")
        return view(session, model_id)


def active_id(db: Database) -> int | None:
    """The id of the trained model that new batches run with; None when none was activated."""
    with db.reading() as session:
        return _active_id(session)


def named(db: Database, wanted: str) -> ModelView:
    """The trained model called "active", "NAME:VERSION", "NAME VERSION" or "NAME" (of several versions the newest
    registered). Raises Unknown with the nearest names."""
    if wanted == "active":
        return active(db)
    known = {one.label: one for one in registered(db)}
    found = [one for one in known.values() if wanted in (one.name, one.label, f"{one.name}:{one.version}")]
    if found:
        return found[-1]
    spelled = wanted.replace(":", " ")
    near = difflib.get_close_matches(spelled, known, n=3, cutoff=0.4) or list(known)[-3:]
    advice = f"did you mean {' or '.join(repr(label) for label in near)}?" if near else "there is none yet."
    raise Unknown(f"no trained model {wanted!r}: {advice} `nightread models list` shows them all")


def in_use(db: Database) -> list[ModelView]:
    """The active model, and those that unfinished batches run with."""
    with db.reading() as session:
        ids = {
            _active_id(session),
            *session.scalars(select(Chunk.trained_model_id).where(Chunk.completed_at.is_(None))),
        }
        return [view(session, model_id) for model_id in sorted(ids - {None}) if model_id is not None]


def optimised(db: Database, model_id: int, *, forms: dict[str, Any], by: str) -> None:
    """Put on record that a model's folder holds faster forms from now on, and how they agree with float32."""
    with db.writing() as session:
        record(session, by, "model_optimised", f"model {view(session, model_id).label}", forms)


def activations(db: Database, model_id: int) -> list[Decision]:
    """When a model was activated, by whom and why, in order."""
    with db.reading() as session:
        rows = session.scalars(
            select(Activation).where(Activation.trained_model_id == model_id).order_by(Activation.id)
        )
        return [Decision(row.why, row.by, row.at) for row in rows]


def retirement(db: Database, model_id: int) -> Decision | None:
    """Who retired a model, and why; None for one that was not."""
    with db.reading() as session:
        row = _retirement(session, model_id)
        return None if row is None else Decision(row.why, row.by, row.at)


def registered(db: Database) -> list[ModelView]:
    """Every registered trained model, in the order of registration."""
    with db.reading() as session:
        return [
            view(session, model_id)
            for model_id in session.scalars(select(TrainedModel.id).order_by(TrainedModel.id)).all()
        ]


def get(db: Database, model_id: int) -> ModelView:
    """One trained model by id. Raises Unknown."""
    with db.reading() as session:
        return view(session, model_id)


def view(session: Session, model_id: int) -> ModelView:
    """One trained model with the threshold that rules, inside a running transaction."""
    model = session.get(TrainedModel, model_id)
    if model is None:
        raise Unknown(f"no trained model {model_id}")
    retired = _retirement(session, model_id)
    names = ModelView.__dataclass_fields__.keys() - {"threshold", "retired_at"}
    return ModelView(
        **{name: getattr(model, name) for name in names},
        threshold=ruling_threshold(session, model_id),
        retired_at=None if retired is None else retired.at,
    )


def threshold(db: Database, model_id: int) -> float:
    """The threshold of a model that rules now, 0 to 1."""
    with db.reading() as session:
        return ruling_threshold(session, model_id)


def held_threshold(session: Session, model_id: int) -> float:
    """The newest threshold, kept from changing until the running transaction ends: outcomes that are written with it
    are there when a new one recomputes what is stored. (PostgreSQL; on SQLite one transaction writes at a time.)"""
    row = select(TrainedModel.id).where(TrainedModel.id == model_id)
    session.execute(row.with_for_update(read=True, key_share=True))
    return ruling_threshold(session, model_id)


def ruling_threshold(session: Session, model_id: int) -> float:
    """The newest threshold of a model, 0 to 1."""
    newest = select(Threshold.value).where(Threshold.trained_model_id == model_id)
    return session.scalars(newest.order_by(Threshold.id.desc()).limit(1)).one()


def _active_id(session: Session) -> int | None:
    return session.scalar(select(Activation.trained_model_id).order_by(Activation.id.desc()).limit(1))


def _retirement(session: Session, model_id: int) -> Retirement | None:
    return session.scalar(select(Retirement).where(Retirement.trained_model_id == model_id))


def _locked(session: Session, model_id: int) -> TrainedModel:
    """The row, so that nobody decides about the same model at the same moment."""
    model = session.get(TrainedModel, model_id, with_for_update=True)
    if model is None:
        raise Unknown(f"no trained model {model_id}")
    return model


def _same_model(known: TrainedModel, registration: Registration) -> TrainedModel:
    if known.weights_sha256 != registration.weights_sha256:
        label = f"{registration.name} {registration.version}"
        raise Refused(f"{label} is registered with other weights: give the new one another version")
    known.folder = registration.folder
    return known


def _append_threshold(session: Session, model_id: int, value: float, *, why: str, by: str) -> None:
    session.add(Threshold(trained_model_id=model_id, value=value, why=why, by=by, at=now()))
