"""Whether a trained model may become active: one that shortcuts explain as well may not, unless an admin signs."""

from typing import Any

MARGIN = 0.05  # of AUC, on the same images
# The probes that must not know the answer. (A thumbnail may honestly see opacity; blanking is for people to judge.)
PROBES = {"frame": "the frame around the picture", "file": "the file's size, dimensions and format"}


def shortcut_refusal(report: dict[str, Any]) -> str | None:
    """Why a model with this report may not become active, with the figures; None where it may."""
    audit = report.get("audit")
    model = auc(audit, "model")
    probes = {said: auc(audit, name) for name, said in PROBES.items()}
    if model is None or None in probes.values():
        verdict = audit.get("verdict") if isinstance(audit, dict) else None
        said = f" ({verdict.rstrip('.')})" if isinstance(verdict, str) else ""
        return (
            f"its report has no whole shortcut audit{said}, so nothing shows that it reads lungs, not frames or files"
        )
    near = [
        f"{said} alone reaches AUC {value:.3f}"
        for said, value in probes.items()
        if value is not None and round(model - value, 9) < MARGIN
    ]
    if not near:
        return None
    return f"{' and '.join(near)} where the model reaches {model:.3f} on the same images (within {MARGIN} is too near)"


def auc(audit: Any, name: str) -> float | None:
    """One AUC of a report's audit, 0 to 1; None where there is none."""
    figure = audit.get(name) if isinstance(audit, dict) else None
    value = figure.get("value") if isinstance(figure, dict) else None
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else None
