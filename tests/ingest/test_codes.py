"""What can drift: the documented codes are the ones the readers use."""

import ast
from pathlib import Path

import core.limited_child
import distill.teachers
import ingest
import stillhouse.spec.archive
from stillhouse.spec.upload import DATA_CODES


def test_every_documented_code_is_used_and_every_used_code_is_documented() -> None:
    folders = (ingest.__path__[0], distill.teachers.__path__[0])
    files = (core.limited_child.__file__, stillhouse.spec.archive.__file__)
    sources = [*(path for folder in folders for path in Path(folder).glob("*.py")), *map(Path, files)]
    texts = {
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(DATA_CODES) - texts == set(), "documented, but nothing uses them"
    # The other way round is held at run time: `refusing` raises ValueError for a code that is not documented.


def test_every_code_has_a_sentence() -> None:
    for code, sentence in DATA_CODES.items():
        assert code.replace("_", "").isalnum(), code
        assert code == code.lower()
        assert sentence[0].isupper(), code
        assert sentence.endswith("."), code
