"""Folders of trained models on their way in and out: checked, copied whole or not at all, registered."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from db.errors import ModelRefused, Refused
from db.store import models
from db.store.connection import Database
from db.store.models import ModelView, Registration
from db.store.reading import printable
from workers import parity, trained_models
from workers.trained_models import SUMS, TrainedModel

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # also the name of a folder
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
RESERVED = "active"  # what commands call the model that new batches run with
MOST_HEADER_BYTES = 10_000_000  # of a safetensors file; a ResNet-50's has 40,000
SIZES = range(16, 4097)  # pixels of input


def registration(folder: Path) -> Registration:
    """What a trained model's folder says of itself, with its recommended threshold. Raises ModelRefused."""
    model = trained_models.load_folder(folder)
    threshold = trained_models.recommended_threshold(folder)
    report = trained_models.read_report(folder)
    parity.read(folder, model)
    for is_wrong, what in _problems(model, threshold.value, report):
        if is_wrong:
            raise ModelRefused(f"{folder}: {what}")
    for file in (model.weights, model.gate.parameters, *filter(None, [model.int8])):
        if not _is_safetensors(trained_models.read_checked(folder, file)):
            raise ModelRefused(f"{folder / file.file} is not a safetensors file")
    return Registration(
        name=model.name,
        version=model.version,
        folder=str(folder),
        architecture=model.architecture,
        classes=list(model.classes),
        flag_classes=list(model.flag_classes),
        input_size=model.input_size,
        preprocessing_version=model.preprocessing.version,
        weights_sha256=model.weights.sha256,
        minimum_age=float(model.intended_use.minimum_age),
        report=report,
        threshold=float(threshold.value),
        threshold_why=printable(str(threshold.why)),
    )


def take_in(db: Database, folder: Path, *, by: str) -> ModelView:
    """Check a trained model's folder, copy it into the home folder and register it there; works twice.

    Raises ModelRefused where the folder is not whole or not for this code, and Refused where its name and version
    belong to another model.
    """
    given = registration(folder)
    _refuse_others(db, given)
    target = db.config.home / "models" / f"{given.name}-{given.version}"
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _lies_at(target) and not _is_whole(target):
        _remove(target)  # damaged, and here is the same model whole
    copy(folder, target)
    _take_over_forms(folder, target)
    return models.get(db, models.register(db, replace(given, folder=str(target)), by=by))


def put_in(folder: Path, model: TrainedModel, files: Mapping[str, bytes]) -> None:
    """Write a folder's model.json anew, with more files that it names; the folder is whole before and after, and for a
    moment not there (a worker that asks then waits a minute). Raises ModelRefused where the two do not fit."""
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    with _writing(folder):
        try:
            draft.mkdir()
            for file in trained_models.files(folder):
                if file.file != "model.json" and file.file not in files:
                    _write(draft / file.file, trained_models.read_checked(folder, file))
            for name, content in files.items():
                _write(draft / name, content)
            trained_models.write_model(draft, model)
            parity.read(draft, trained_models.load_folder(draft))
            _remove(folder)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def hand_out(model: ModelView, folder: Path) -> Path:
    """Copy a registered model's folder to a new one below `folder`, which is given back; works twice."""
    checked(model)
    target = folder / f"{model.name}-{model.version}"
    with _writing(target):
        folder.mkdir(parents=True, exist_ok=True)
    copy(Path(model.folder), target)
    return target


def checked(model: ModelView) -> TrainedModel:
    """What lies in a registered model's folder. Raises ModelRefused where it is damaged or is another model."""
    found = trained_models.load_folder(Path(model.folder))
    if found.weights.sha256 != model.weights_sha256:
        raise ModelRefused(f"{model.folder} holds other weights than {model.label}")
    parity.read(Path(model.folder), found)
    return found


def copy(source: Path, target: Path) -> None:
    """Copy the files that SHA256SUMS names, each checked as it is read and again where it was written; the whole
    folder appears at once. Nothing happens where the same model lies at `target`; another one there is refused."""
    if _lies_at(target):
        _refuse_another(source, target)
        return
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with _writing(target):
        try:
            draft.mkdir()
            lines = []
            for file in trained_models.files(source):
                _write(draft / file.file, trained_models.read_checked(source, file))
                lines.append(f"{file.sha256}  {file.file}\n")
            _write(draft / SUMS, "".join(lines).encode())
            trained_models.load_folder(draft)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def same_files(one: Path, other: Path) -> bool:
    """Whether two whole folders hold the same files, gate and report included."""
    return set(trained_models.files(one)) == set(trained_models.files(other))


def _problems(model: TrainedModel, threshold: object, report: object) -> Iterator[tuple[bool, str]]:
    """What the database, a path or a page could not take, each with its sentence."""
    name, version = str(model.name), str(model.version)
    is_fit = NAME.fullmatch(name) and name != RESERVED and VERSION.fullmatch(version)
    yield not is_fit, f"{name!r} {version!r} is no name and version (letters, digits, '.', '_', '-'; not 'active')"
    yield not NAME.fullmatch(str(model.architecture)[:40]), "its architecture has no proper name"
    yield not all(isinstance(one, str) and 0 < len(one) <= 100 for one in model.classes), "a class has no proper name"
    yield not (isinstance(model.input_size, int) and model.input_size in SIZES), "its input size is no number of pixels"
    age = model.intended_use.minimum_age
    yield not (isinstance(age, (int, float)) and 0 <= age <= 150), "the minimum age is no number of years"
    yield not (isinstance(threshold, (int, float)) and 0 <= threshold <= 1), "the recommended threshold is not 0 to 1"
    yield not isinstance(report, dict) or not _is_plain(report), "report.json holds what is not plain JSON"


def _is_safetensors(content: bytes) -> bool:
    """Whether the file is what the format says: a header's length in 8 bytes, that header in JSON, and arrays that
    follow each other to the last byte, with nothing behind them."""
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(len(content) - 8, MOST_HEADER_BYTES):
        return False
    end = 0
    try:
        header = json.loads(content[8 : 8 + length])
        for start, stop in sorted(array["data_offsets"] for name, array in header.items() if name != "__metadata__"):
            if start != end or stop < start:
                return False
            end = stop
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    return bool(end == len(content) - 8 - length)


def _is_plain(report: object) -> bool:
    try:
        json.dumps(report, allow_nan=False)
    except ValueError:
        return False
    return True


def _refuse_others(db: Database, given: Registration) -> None:
    known = [one for one in models.registered(db) if (one.name, one.version) == (given.name, given.version)]
    if known and known[0].weights_sha256 != given.weights_sha256:
        raise Refused(f"{known[0].label} is registered with other weights: give the new one another version")


def _refuse_another(source: Path, target: Path) -> None:
    wanted, found = trained_models.load_folder(source), trained_models.load_folder(target)
    if (wanted.name, wanted.version, wanted.weights.sha256) != (found.name, found.version, found.weights.sha256):
        raise Refused(f"{target} is another trained model: move it out of the way, or choose another folder")


def _take_over_forms(source: Path, target: Path) -> None:
    """The same model comes with faster forms that the copy which lies there lacks: the copy gets them."""
    given, kept = trained_models.load_folder(source), trained_models.load_folder(target)
    if given.parity is None or kept.parity is not None:
        return
    new = [file for file in (given.int8, given.parity) if file is not None]
    forms = replace(kept, int8=given.int8, parity=given.parity)
    put_in(target, forms, {file.file: trained_models.read_checked(source, file) for file in new})


def _lies_at(target: Path) -> bool:
    if target.is_symlink():
        raise Refused(f"{target} is a symbolic link: remove it, trained models are kept as plain folders")
    return target.exists()


def _is_whole(folder: Path) -> bool:
    try:
        trained_models.load_folder(folder)
    except ModelRefused:
        return False
    return True


def _remove(target: Path) -> None:
    """Out of sight at once, then gone."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with _writing(target):
        target.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(f"{target} cannot be written: {error.strerror or error}") from error
