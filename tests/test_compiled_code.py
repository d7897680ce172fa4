"""What compiling says of itself: why it happened again, where graphs break, what it generated.

Run alone: ``python -m pytest tests/test_compiled_code.py``.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import core
from profiling.__main__ import main
from profiling.measure import compiled_code
from profiling.measure.compile_reasons import failed_guard
from profiling.measure.compile_stats import Watch
from profiling.measure.compiled_code import (
    CODE_FILE,
    CUT,
    SHOWN_LINES,
    GeneratedCode,
    code_archive,
    generated_code,
    pack_code,
    read_code,
)
from profiling.report.compile_section import compiling
from profiling.report.page import Page
from profiling.report.report import run_report
from profiling.runs.store import RunStore
from profiling.trace.source_places import ROOT, without_folders
from recorded import RUN

WRAPPER = "import torch\nimport math\n\ncpp_fused_mul_0 = 1\ndef call(args):\n    return args\n"


def code(**changes: str) -> GeneratedCode:
    given = {"graph": "decode-B1", "part": "module", "language": "python", "source": WRAPPER}
    return GeneratedCode(**{**given, **changes})


def test_a_recompilation_names_its_guard_and_the_line_it_came_from() -> None:
    def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
        y = x / 2
        return y * factor

    watch = Watch()
    compiled = torch.compile(scaled, backend="eager", dynamic=False)
    compiled(torch.ones(3), 1.5)
    compiled(torch.ones(4), 1.5)
    compiled(torch.ones(4), 2.5)
    by_shape, by_value = watch.read().recompiles
    assert "size mismatch at index 0. expected 3, actual 4" in by_shape.recompile_reason
    line = scaled.__code__.co_firstlineno
    assert by_shape.source == f"tests/test_compiled_code.py:{line}, in scaled"
    assert by_value.recompile_reason.endswith(": factor == 1.5")
    assert by_value.source == (
        f"tests/test_compiled_code.py:{line + 2}, in scaled: return y * factor"
    )


def test_a_graph_break_is_told_with_its_line() -> None:
    def breaks(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + 1

    watch = Watch()
    torch.compile(breaks, backend="eager")(torch.ones(2) * 3)
    (one,) = watch.read().graph_breaks
    line = breaks.__code__.co_firstlineno + 1
    place = f"tests/test_compiled_code.py:{line}, in breaks: torch._dynamo.graph_break()"
    assert (one.source, one.count) == (place, 1)
    assert "graph_break" in one.reason
    assert Watch().read().graph_breaks == ()


def test_folders_of_the_machine_are_taken_out_of_what_is_kept() -> None:
    said = f'File "{ROOT}core/lab.py", line 3; "/opt/x/site-packages/torch/nn/a.py"; /home/me/b.py'
    assert without_folders(said) == 'File "core/lab.py", line 3; "torch/nn/a.py"; b.py'
    for kept in ("https://meta-pytorch.github.io/a/b", "a / b", "x/y/z", "#include <a/b/c.h>"):
        assert without_folders(kept) == kept
    assert failed_guard(None) == (None, None)


def test_generated_files_are_read_kernels_first_and_what_is_gone_left_out(tmp_path: Path) -> None:
    module = tmp_path / "cab.py"
    module.write_text(WRAPPER + f"# kernel path: {tmp_path}/kernel.py\n")
    package = tmp_path / "encode-B1.pt2"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("encode-B1/data/x.wrapper.cpp", "#include <a>\nvoid run();")
        archive.writestr("encode-B1/data/y.kernel.cpp", 'extern "C" void kernel();')
        archive.writestr("encode-B1/data/y.so", b"\x7fELF")
    files = {
        "decode-B1": (str(module),),
        "encode-B1": (str(package),),
        "gone": (str(tmp_path / "no.py"), str(tmp_path / "no.pt2")),
    }
    found = generated_code(files)
    assert [(one.graph, one.part, one.language) for one in found] == [
        ("decode-B1", "module", "python"),
        ("encode-B1", "kernels", "c++"),
        ("encode-B1", "wrapper", "c++"),
    ]
    assert str(tmp_path) not in found[0].source
    assert found[1].file_name == "encode-B1.kernels.cpp"


def test_what_is_kept_is_bounded_and_says_where_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_code, "MAX_FILE", 1000)
    monkeypatch.setattr(compiled_code, "MAX_TOTAL", 2500)
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.py")
        paths[-1].write_text("x = 1\n" * 1000)
    found = generated_code({"decode": [str(path) for path in paths]})
    assert [len(one.source) for one in found] == [1000, 1000, 500]
    assert all(one.source.endswith(CUT) for one in found)


def test_code_is_read_back_as_it_was_packed_and_saved_by_name(tmp_path: Path) -> None:
    codes = [code(), code(graph="../../etc/x", language="c++"), code()]
    file = tmp_path / CODE_FILE
    file.write_bytes(pack_code(codes))
    assert read_code(file) == codes
    with zipfile.ZipFile(io.BytesIO(code_archive(codes))) as archive:
        assert archive.namelist() == [
            "decode-B1.module.py",
            "etc_x.module.cpp",
            "2-decode-B1.module.py",
        ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"no json"),
        gzip.compress(b"[]"),
        gzip.compress(b'{"files": 3}'),
        gzip.compress(b'{"files": [{"graph": 1, "part": "", "language": "", "source": ""}]}'),
        gzip.compress(json.dumps({"files": [{"graph": "a"}]}).encode()),
        gzip.compress(b"[" * 100_000),
        pack_code([code()])[:-9],
    ],
    ids=range(9),  # packed bytes hold the time of day, and two workers would name them apart
)
def test_what_is_no_generated_code_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / CODE_FILE
    file.write_bytes(content)
    with pytest.raises(ValueError, match="compiled_code.json.gz cannot be read") as caught:
        read_code(file)
    assert str(tmp_path) not in str(caught.value)


def test_a_reader_sees_where_the_kernels_begin() -> None:
    said, text = code().excerpt()
    assert text.startswith("cpp_fused_mul_0")
    assert said == "lines 4 to 6 of 6"
    said, text = code(source=WRAPPER + "y = 2\n" * 5000 + "z" * 999).excerpt()
    assert len(text.splitlines()) == SHOWN_LINES
    assert said == f"lines 4 to {SHOWN_LINES + 3} of 5,007"


LEDGER: dict[str, Any] = {
    "graphs": 2,
    "seconds": 3.0,
    "guards": 12,
    "breaks": {"call to print\n  Hint: do not": 1},
    "graph_breaks": [{"reason": "call to print", "source": "a.py:3, in f: print()", "count": 1}],
    "recompiles": [
        {
            "stage": "decode",
            "recompile_reason": "0/0: tensor 'x' size mismatch",
            "source": "core/engine/graphs.py:97, in decode",
            "seconds": 1.0,
        }
    ],
    "entries": [],
    "caches": {},
}


def test_the_report_shows_guards_breaks_and_code_and_nothing_becomes_html() -> None:
    page = Page("", {})
    hostile = code(graph="<img src=x>", source="</pre><script>alert(1)</script>")
    compiling(page, {"compile": LEDGER}, [code(), hostile])
    shown = "".join(page.parts)
    assert "guard that failed" in shown
    assert "core/engine/graphs.py:97, in decode" in shown
    assert "a.py:3, in f: print()" in shown
    assert "cpp_fused_mul_0" in shown
    assert "<script" not in shown
    assert "<img" not in shown
    assert "cpp_fused_mul_0" in run_report({**RUN, "compile": LEDGER}, None, [code()])


def test_a_run_of_before_is_told_without_what_it_lacks() -> None:
    old = {key: value for key, value in LEDGER.items() if key != "graph_breaks"}
    page = Page("", {})
    compiling(page, {"compile": old})
    shown = "".join(page.parts)
    assert "call to print" in shown
    assert "Hint" not in shown
    assert "not kept" in shown


def test_the_command_lists_the_code_of_a_run_and_writes_it_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path / "runs")
    store.write(RUN, files={CODE_FILE: pack_code([code(), code()])})
    store.write({**RUN, "id": "eager"})
    where = ("--out", str(store.root))
    assert main(["code", RUN["id"], *where, "--save", str(tmp_path / "code")]) == 0
    assert "decode-B1         module          6 lines" in capsys.readouterr().out
    written = sorted(file.name for file in (tmp_path / "code").iterdir())
    assert written == ["1-decode-B1.module.py", "decode-B1.module.py"]
    assert main(["code", "eager", *where]) == 2
    assert "has no generated code" in capsys.readouterr().err


def test_a_run_carries_its_code_to_another_machine(tmp_path: Path) -> None:
    here, there = RunStore(tmp_path / "here"), RunStore(tmp_path / "there")
    here.write(RUN, files={CODE_FILE: pack_code([code()])})
    packed = tmp_path / "run.zip"
    packed.write_bytes(here.export_zip(RUN["id"]))
    name = there.import_zip(packed)
    file = there.file_path(name, CODE_FILE)
    assert file is not None
    assert read_code(file) == [code()]


COMPILE_TWICE = """
import torch
from core.engine.compiling import CompileLedger, Compiler
from core.engine.graphs import Graph
from profiling.measure.compiled_code import generated_code

def double(values, switch):
    return (values * 2 + values.cos(),)

for _ in range(2):
    torch.compiler.reset()
    ledger = CompileLedger()
    Compiler(ledger)(Graph("decode", double, ({0: "B"}, {})), (torch.zeros(3), None))
    (one,) = generated_code(ledger.code)
    assert one.graph == "decode", one.graph
    print("def call" in one.source)
"""


@pytest.mark.slow
def test_the_compiler_names_its_files_also_where_it_has_them_already(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_TWICE],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        cwd=Path(core.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
