"""Forms that texts must have, and the words for whoever gave another: few people read regular expressions."""

NAME = r"^[\w][\w .:@+\-]*$"
LABEL_KEY = r"^[A-Za-z0-9][\w.\-/]*$"
ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
LAYER_PATH = r"^[\w.\-]+$"
PRINTABLE = r"^[\x21-\x7e]+$"
ARCHITECTURE = r"^(timm|torchvision)/[A-Za-z0-9_.\-]{1,100}$"
SERIES = r"^[\w./\-]+$"

_WORDS = {
    NAME: "Should begin with a letter or digit, and go on with letters, digits, spaces and . : @ + - _ alone.",
    LABEL_KEY: "Should begin with a letter from A to Z or a digit, and go on with letters, digits and . - / _ alone.",
    ONE_LINE: "Should be one line without control characters.",
    LAYER_PATH: "Should be the path of a layer, such as network.2: letters, digits and . - _ alone.",
    PRINTABLE: "Should be printable ASCII without spaces.",
    ARCHITECTURE: "Should be timm/ or torchvision/ and a name of theirs, such as timm/resnet18.",
    SERIES: "Should be the name of a series, such as distilling/loss: letters, digits and . / - _ alone.",
}


def worded(pattern: str) -> str | None:
    """What a text of this form looks like, as a sentence; None for a form of somebody else."""
    return _WORDS.get(pattern)
