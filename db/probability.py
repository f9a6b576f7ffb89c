"""What a score means at a site: the probability of a suspicious scan where these are rarer, or more frequent, than they
were among the images on which the trained model was calibrated.

Source: Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
Neural Computation 14 (2002), equation 2.4. For flagged against not flagged: the odds p / (1 - p), times the odds of
the prevalence here, over the odds of the share there.

It assumes that a suspicious scan looks the same here as there, and an unsuspicious one likewise, so that only their
mix differs (label shift); with several classes that flag, that the mix within these is the same, too. Another device,
another disease, or children are another assumption broken: then no formula helps, only a site's own images.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Mean distance between score and share of positives (ECE) beyond which scores are no probabilities.
MOST_ERROR = 0.1


def at_prevalence(score: float, trained_at: float | None, prevalence: float | None) -> float | None:
    """The probability (0-1) that a scan of this score (0-1) is suspicious, at a site where the share `prevalence` (0-1)
    of all scans is.

    `trained_at` is the share among the images that the scores were calibrated on (`trained_at` below). None,
    "uncalibrated", where either is unknown or certain (0 or 1).
    """
    if trained_at is None or prevalence is None or not (0 < trained_at < 1 and 0 < prevalence < 1):
        return None
    suspicious = score * prevalence / trained_at
    rest = (1 - score) * (1 - prevalence) / (1 - trained_at)
    return suspicious / (suspicious + rest)


def trained_at(report: Mapping[str, Any], flag_classes: Sequence[str]) -> float | None:
    """The share of the flag classes among the validation images, on which a trained model's temperature was fitted, as
    its report states (`db.store.models.ModelView.report`).

    None where the report, which may be anybody's, does not say; where classes were weighted in training (the scores
    then belong to no mix of images that is on record); and where what was measured after scaling is too far from
    probabilities (ECE above MOST_ERROR).
    """
    counts = _at(report, "data", "counts", "validation")
    error = _at(report, "calibration", "ece_after")
    if not isinstance(counts, Mapping) or not _is_number(error) or not 0 <= error <= MOST_ERROR:
        return None
    if _at(report, "made_by", "recipe", "class_weights") not in (None, "none"):
        return None
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return None
    flagged, everything = sum(counts.get(name, 0) for name in flag_classes), sum(counts.values())
    return flagged / everything if 0 < flagged < everything else None


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
