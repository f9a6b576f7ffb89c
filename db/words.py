"""The closed sets that every part of the house speaks: one word, one thing. Plain Python: decoders import it."""

from enum import IntEnum, StrEnum

# What ledger and workers agree on: raised when a worker must do something new with a chunk. It names the queue and is
# written into every chunk, so that an older worker neither hears a newer ring nor claims a newer chunk.
# 2: a breadcrumb says that its worker scored the golden image first. 3: who completes a chunk enters what is flagged in
# the worklist. 4: a score of the first of two stages is kept with the threshold that it holds from, and a scan whose
# score a lower threshold called in question is looked at again, though it may be on the worklist.
PROTOCOL = 4


class Reason(StrEnum):
    """Why a scan was rejected: something about the file itself, so that trying again would not help."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    ENCRYPTED = "encrypted"
    MULTI_FRAME = "multi_frame"
    NOT_FRONTAL = "not_frontal"
    NOT_CHEST = "not_chest"
    BLANK = "blank"
    DUPLICATE = "duplicate"
    NO_PERMISSION = "no_permission"
    NOT_A_FILE = "not_a_file"
    MISSING = "missing"
    CHANGED_SINCE_SUBMISSION = "changed_since_submission"
    OUTSIDE_ROOT = "outside_root"
    OUTSIDE_INTENDED_USE = "outside_intended_use"


REASON_MEANINGS: dict[Reason, str] = {
    Reason.EMPTY: "the file has no bytes",
    Reason.NOT_AN_IMAGE: "not a PNG, JPEG, TIFF, BMP, WebP or DICOM image",
    Reason.TRUNCATED: "the file ends before its picture does",
    Reason.UNREADABLE: "the picture could not be decoded",
    Reason.TOO_LARGE: "more bytes or pixels than the limits allow",
    Reason.TOO_SMALL: "too few pixels to screen",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "a DICOM compression that this installation cannot decode",
    Reason.ENCRYPTED: "an encrypted DICOM object",
    Reason.MULTI_FRAME: "more than one frame or page in one file",
    Reason.NOT_FRONTAL: "the DICOM header says it is not a frontal (PA or AP) view",
    Reason.NOT_CHEST: "unlike the chest X-rays that the model was trained on",
    Reason.BLANK: "no picture inside the frame",
    Reason.DUPLICATE: "the same content was already submitted by this site",
    Reason.NO_PERMISSION: "the file may not be read by this user",
    Reason.NOT_A_FILE: "a device, pipe or socket",
    Reason.MISSING: "the file was there at submission and is gone",
    Reason.CHANGED_SINCE_SUBMISSION: "the file's content changed between submission and scoring",
    Reason.OUTSIDE_ROOT: "a symbolic link or path that leaves the submitted folder",
    Reason.OUTSIDE_INTENDED_USE: "the patient is outside the model's stated range",
}


class Cause(StrEnum):
    """Why a scan failed: our machinery gave up; `nightread retry` tries again."""

    WORKER_DIED = "worker_died"
    OUT_OF_MEMORY = "out_of_memory"
    ENGINE_ERROR = "engine_error"
    TIMED_OUT = "timed_out"


CAUSE_MEANINGS: dict[Cause, str] = {
    Cause.WORKER_DIED: "workers died each time they held this scan",
    Cause.OUT_OF_MEMORY: "the device ran out of memory even with this scan alone",
    Cause.ENGINE_ERROR: "the engine raised an error or gave a score that is not a probability",
    Cause.TIMED_OUT: "no worker finished this scan within its lease, however often it was tried",
}


# What a rejected or failed scan's code means, whichever of the two it is.
MEANINGS: dict[str, str] = {str(code): said for code, said in (*REASON_MEANINGS.items(), *CAUSE_MEANINGS.items())}


class Kind(StrEnum):
    """The kind of an outcome."""

    SCORED = "scored"
    REJECTED = "rejected"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a reader said of a scan."""

    CONFIRM = "confirm"
    DISMISS = "dismiss"
    UNSURE = "unsure"
    REPEAT = "repeat"  # the image is to be taken again


class Stage(StrEnum):
    """Which of a reader's acts a review is."""

    IMPRESSION = "impression"  # before score and heat map were shown
    VERDICT = "verdict"
    ARBITRATION = "arbitration"  # the last word where readers disagreed or nobody was sure


class State(StrEnum):
    """Where a worklist entry stands."""

    UNREAD = "unread"
    SECOND = "second"  # one reader has read it, and a second one must
    ARBITER = "arbiter"  # readers disagree, or the verdict is "unsure"
    DONE = "done"
    WITHDRAWN = "withdrawn"  # a later threshold no longer flags it, and nobody had read it


class Step(StrEnum):
    """What happened to a case outside of screening and reading, which have rows of their own."""

    SUSPECTED = "suspected"
    IMAGED = "imaged"
    LABORATORY = "laboratory"
    CLOSED = "closed"
    REOPENED = "reopened"


class LabResult(StrEnum):
    """What the laboratory found."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    INDETERMINATE = "indeterminate"


class Closing(StrEnum):
    """How a case ended."""

    ISOLATED = "isolated"  # and treated
    RELEASED = "released"


class Role(StrEnum):
    """What a user may do: centres see their own batches, readers review, arbiters also decide where readers disagree,
    admins run the house."""

    ADMIN = "admin"
    READER = "reader"
    ARBITER = "arbiter"
    CENTRE = "centre"


class Exit(IntEnum):
    """Stable exit codes of every command."""

    DONE = 0
    PARTIAL = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
