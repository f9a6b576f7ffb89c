"""The paper's figures (R18, R21), its known errors, and what its protocol leaves open (R22). No framework is loaded."""

from dataclasses import dataclass

FIGURES = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc")

# accuracy, sensitivity, specificity, F1, AUC as printed.
Printed = dict[str, float]


def _row(accuracy: float, sensitivity: float, specificity: float, f1: float, auc: float) -> Printed:
    shares = {"accuracy": accuracy / 100, "sensitivity": sensitivity / 100, "specificity": specificity / 100}
    return {**{name: round(value, 4) for name, value in shares.items()}, "f1": f1, "auc": auc}


TABLE_4 = {
    "vgg19": _row(91.60, 89.10, 94.10, 0.91, 0.97),
    "resnet50": _row(94.40, 96.20, 92.60, 0.94, 0.98),
    "inception_v3": _row(93.40, 95.10, 91.70, 0.93, 0.97),
}
TABLE_5 = {
    "vgg19": _row(89.25, 89.20, 75.30, 0.83, 0.90),
    "resnet50": _row(93.15, 91.80, 94.50, 0.93, 0.98),
    "inception_v3": _row(91.60, 90.80, 92.40, 0.92, 0.97),
}


@dataclass(frozen=True)
class SmallSample:
    """A line of Table 7: loss and accuracy on so many test images after training on so many."""

    training: int
    tested: int
    loss: float
    accuracy: float


TEST_SIZES = (1381, 2762)
TABLE_7 = (
    SmallSample(100, 1381, 0.12437, 0.99131),
    SmallSample(100, 2762, 0.12443, 0.98914),
    SmallSample(80, 1381, 0.27152, 0.98769),
    SmallSample(80, 2762, 0.27507, 0.98298),
    SmallSample(60, 1381, 0.05112, 0.99421),
    SmallSample(60, 2762, 0.05731, 0.99348),
)
CURVES_OF = {100: "Figure 14", 80: "Figure 15", 60: "Figure 16"}

STEPS = (
    "The paper's five runs of 80 images give accuracies in steps of 0.25 points: several of its printed means are not "
    "reachable. Compare orders and intervals, not decimals."
)
ERRORS_4 = (STEPS,)
ERRORS_5 = (
    STEPS,
    "The paper's VGG-19 accuracy in Table 5 (89.25 %) lies above both its sensitivity and its specificity, which one "
    "test set cannot do; balanced data would give 82.25 %.",
    "The paper's text ranks the sensitivity of VGG-19 above that of Inception-v3 in Table 5; its table says the "
    "reverse.",
)
ERRORS_7 = (
    "The paper's test sets of 1381 and 2762 images are 10 % and 20 % of 13,808, so presumably unbalanced: a constant "
    "answer would score 73.8 % there.",
    "In the paper's Table 7 training on 60 images beats 100, against its stated conclusion.",
    "The paper picked and cropped its images of this study by hand; ours are drawn at random, so lower figures are to "
    "be expected.",
)
