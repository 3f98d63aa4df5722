"""Options that a runtime declares for itself, one from another package too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ssmprov.configuration import parse
from ssmprov.errors import BadRequest

MODEL = '[[model]]\nname = "m"\nruntime = "{}"\npath = "x"\n'
PLUGIN = """
import msgspec

class Options(msgspec.Struct):
    depth: int = 1

def open_runtime(plan):
    raise NotImplementedError
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of a runtime that another package brings."""
    folder = tmp_path / "deep-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: deep\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[ssmprov.runtimes]\ndeep = deep_runtime:open_runtime\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deep_runtime", raising=False)
    return tmp_path / "deep_runtime.py"


def test_a_runtime_of_another_package_declares_its_options(plugin: Path) -> None:
    plugin.write_text(PLUGIN)
    assert parse(MODEL.format("deep") + "depth = 3\n", "it").model[0].options == {"depth": 3}
    with pytest.raises(BadRequest, match=r"unknown key 'dept'; did you mean depth\? \(the runtime deep takes depth\)"):
        parse(MODEL.format("deep") + "dept = 3\n", "it")


def test_a_runtime_without_options_takes_none(plugin: Path) -> None:
    plugin.write_text("def open_runtime(plan): ...\n")
    assert parse(MODEL.format("deep"), "it").model[0].options == {}
    with pytest.raises(BadRequest, match="the runtime deep takes no further keys"):
        parse(MODEL.format("deep") + "depth = 3\n", "it")


def test_a_runtime_that_cannot_be_imported_is_left_to_its_worker(plugin: Path) -> None:
    plugin.write_text("import a_library_that_is_not_installed\n")
    assert parse(MODEL.format("deep") + "depth = 3\n", "it").model[0].options == {"depth": 3}


@pytest.mark.parametrize("line", ["threads = 2", "quantize = 3"])
def test_checking_options_loads_no_library_of_a_runtime(line: str) -> None:
    text = "".join(
        MODEL.replace('"m"', f'"{name}"').format(name) + key
        for name, key in (("llama", "n_ctx = 64\n"), ("asm", 'scan = "exact"\n'), ("rwkv", f"{line}\n"))
    )
    program = (
        "import sys\nfrom ssmprov.configuration import parse\nfrom ssmprov.errors import BadRequest\n"
        "try:\n    parse(sys.argv[1], 'it')\nexcept BadRequest:\n    print('refused')\n"
        "print(sorted({'torch', 'numpy', 'llama_cpp'} & set(sys.modules)))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, text], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == ("refused\n" if "quantize" in line else "") + "[]\n"
