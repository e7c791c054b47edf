"""What is measured is what an installation would be."""

from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tunnel.bench.subjects import compile_modules, own_folders


def test_bytecode_is_there_also_where_python_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = tmp_path / "inner" / "module.py"
    module.parent.mkdir()
    module.write_text("x = 1\n")
    compile_modules([tmp_path])
    assert Path(cache_from_source(str(module))).is_file()
    found = {folder.name for folder in own_folders()}
    assert found == {"tunnel", "crypto"}
