"""Every error raised on purpose, in one tree; each message is one sentence that says what to do."""

from db.words import Exit, Reason


class NightreadError(Exception):
    """The root of the tree; `exit_code` is what a command ends with when it gets this far."""

    exit_code: Exit = Exit.PARTIAL


class UnreadableImage(NightreadError):
    """A file that cannot be screened: `code` says why, `detail` says what was seen (never patient data)."""

    def __init__(self, code: Reason, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class RootUnavailable(NightreadError):
    """A root folder does not answer: machinery, not a reason to reject its scans."""

    exit_code = Exit.UNREACHABLE


class QueueUnreachable(NightreadError):
    """The queue server does not answer."""

    exit_code = Exit.UNREACHABLE


class DatabaseUnreachable(NightreadError):
    """The database does not answer, or has not been set up."""

    exit_code = Exit.UNREACHABLE


class Unknown(NightreadError):
    """A site, batch, model or user of that name does not exist."""

    exit_code = Exit.USAGE


class Refused(NightreadError):
    """Understood, and not allowed."""

    exit_code = Exit.REFUSED


class ModelRefused(Refused):
    """A trained model's folder is incomplete, altered, or not for this version of the code."""


class DataRefused(Refused):
    """Labelled images that nothing can be learned or measured from as they are."""


class NothingScores(NightreadError):
    """Scans wait, and no worker comes to score them: waiting longer would be in vain."""


class SignOnFailed(NightreadError):
    """The identity provider did not say who somebody is, or not so that we may believe it; `why` is one word for the
    record."""

    exit_code = Exit.REFUSED

    def __init__(self, why: str, sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


class DeviceUnsound(NightreadError):
    """A device that does not score the golden image as it should: broken machinery, no scan is to blame."""


class DecodersUnavailable(NightreadError):
    """No decoder process starts: broken machinery, not a reason to reject a scan."""
