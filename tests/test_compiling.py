"""Stages as whole graphs; LoRA, lengths and positions are data.

The default tests trace with cheap backends; the ones marked slow compile for real.
Run alone: ``python -m pytest tests/test_compiling.py -m ""``.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental.symbolic_shapes import ConstraintViolationError

import core
from core.engine import compiling
from core.engine.compiler_cache import cache_folder, use_processors_folder
from core.engine.compiling import (
    CompileError,
    CompileLedger,
    Compiler,
    compiled_engine,
    trust_the_processor,
    without_broken_libraries,
)
from core.engine.graphs import Graph
from core.engine.stages import (
    ROW_TILE,
    Engine,
    decode_stage,
    eager_engine,
    encode_stage,
    prefill_stage,
    project_stage,
    whole_tiles,
)
from core.generation.greedy import PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.lab import Lab
from core.model.cache import allocate_cache
from core.model.granite_speech import GraniteSpeech
from core.model.lora import switch
from core.phases import PhaseClock
from tiny_models import AUDIO_ID, attach_adapter, random_model, raw_config, write_adapter


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def model() -> GraniteSpeech:
    return random_model()


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Everything ``core.engine.compiling`` compiles is traced only; counts graphs."""
    counter = CompileCounter()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, backend=counter))
    return counter


def test_rows_are_padded_to_tiles():
    assert [whole_tiles(n) for n in (1, 2, 3, 15, 16, 17)] == [1, 2, 16, 16, 16, 32]
    assert ROW_TILE == 16


def test_compiled_sizes_are_the_eager_ones_but_for_two_in_place_of_one(model: GraniteSpeech):
    compiled, eager = compiled_engine(model, CompileLedger()), eager_engine(model)
    for length in (2, 19, 20, 21, 63, 64, 65, 300):
        assert compiled.frames_bucket(length) == eager.frames_bucket(length)
        assert compiled.prompt_bucket(length) == eager.prompt_bucket(length) == length
        assert compiled.cache_bucket(length) == eager.cache_bucket(length)
        assert compiled.verify_bucket(length) == eager.verify_bucket(length)
    assert [eager.frames_bucket(n) for n in (1, 19, 20, 21, 25, 51)] == [1, 19, 20, 25, 25, 60]
    assert compiled.prompt_bucket(1) == compiled.frames_bucket(1) == 2  # one would be a graph more
    assert eager.slots_in_use(0, 500) == compiled.slots_in_use(0, 500) == 64
    assert eager.slots_in_use(64, 500) == 128
    assert eager.slots_in_use(490, 500) == 500


def run(
    engine: Engine,
    model: GraniteSpeech,
    *prompts: list[int],
    **options: object,
):
    inputs = PromptBatch(prompts, torch.zeros(len(prompts), 1, 32), None)
    settings = GenerationOptions(**options)
    *_, rows = generate(engine, model.config.decoder, inputs, settings, clock=PhaseClock())
    return [row.ids for row in rows]


def test_prefill_and_decode_are_one_graph_each_for_any_length(
    model: GraniteSpeech, counter: CompileCounter
):
    engine = compiled_engine(model, CompileLedger())
    for prompt in ([1, 2, 3], [4] * 117, [5]):
        found = run(engine, model, prompt, max_new_tokens=20, ignore_eos=True)
        expected = run(eager_engine(model), model, prompt, max_new_tokens=20, ignore_eos=True)
        assert found == expected
    assert counter.frame_count == 2


def test_lora_on_off_and_mixed_share_one_graph(tmp_path_factory: pytest.TempPathFactory):
    model = random_model()
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(folder, model)
    attach_adapter(model, folder)
    counter = CompileCounter()
    decode = torch.compile(prefill_stage(model), backend=counter, fullgraph=True, dynamic=False)
    cache = allocate_cache(
        model.config.decoder, batch=2, num_slots=16, dtype=torch.float32, device=torch.device("cpu")
    )
    ids, audio = torch.randint(300, (2, 5)), torch.zeros(2, 1, 32)
    found = []
    with torch.inference_mode():
        for rows in ([True, True], [False, False], [True, False]):
            lora = switch(rows, like=audio)
            found.append(decode(ids, audio, torch.tensor([[4], [4]]), cache, lora)[:, 0])
    assert counter.frame_count == 1
    torch.testing.assert_close(found[2], torch.stack([found[0][0], found[1][1]]))
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("rows", [1, 3])
def test_whole_blocks_and_parts_of_one_share_a_graph(
    model: GraniteSpeech, counter: CompileCounter, rows: int
):
    engine, eager = compiled_engine(model, CompileLedger()), eager_engine(model)
    for frames in (40, 50, 60, 47, 41):  # blocks of 20; the first clip decides nothing
        features, lengths = torch.randn(rows, frames, 160), torch.tensor([frames] * rows)
        with torch.inference_mode():
            found = engine.encode(features, lengths, None).frames
            torch.testing.assert_close(found, eager.encode(features, lengths, None).frames)
    assert counter.frame_count == 1


def test_batches_of_any_size_above_one_share_a_graph(model: GraniteSpeech, counter: CompileCounter):
    engine = compiled_engine(model, CompileLedger())

    def project(batch: int) -> int:
        with torch.inference_mode():
            return engine.project(torch.zeros(batch, 20, 32), None).shape[0]

    # In another thread, as an app serves its callers: Dynamo's settings belong to a thread.
    with ThreadPoolExecutor(1) as pool:
        assert list(pool.map(project, range(1, 12))) == list(range(1, 12))
    assert counter.frame_count == 1


def test_a_size_that_would_become_a_number_is_an_error(counter: CompileCounter):
    def only_five(values: Tensor, switch: None) -> tuple[Tensor, ...]:
        return (values * 2 if values.shape[0] == 5 else values,)

    compiler = Compiler(CompileLedger())
    with pytest.raises(ConstraintViolationError, match="specialized it to be a constant"):
        compiler(Graph("decode", only_five, ({0: "B"}, {})), (torch.zeros(5, 2), None))


def test_a_half_written_library_is_removed_and_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    use_processors_folder()
    broken = cache_folder() / "ab" / "cabkernel.so"
    broken.parent.mkdir()
    broken.write_bytes(b"\x7fELF")

    def load() -> str:
        if broken.exists():
            raise ImportError(f"{broken}: file too short")
        return "loaded"

    assert without_broken_libraries(load) == "loaded"
    assert not broken.exists()


COMPILE_ONCE = """
import torch
from core.engine.compiling import CompileLedger, Compiler
from core.engine.graphs import Graph

def double(values, switch):
    return (values * 2 + values.cos(),)

graph = Graph("decode", double, ({0: "B"}, {}))
print(Compiler(CompileLedger())(graph, (torch.zeros(64), None))[0].sum().item())
"""


def run_once(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Sum 64 cosines of zero in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", COMPILE_ONCE],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), **environment},
        cwd=Path(core.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="other vectors have one width"
)
def test_what_was_compiled_for_wider_vectors_is_not_used_for_narrower_ones(tmp_path: Path):
    wide = run_once(tmp_path)
    assert wide.stdout.splitlines()[-1] == "64.0"
    narrow = run_once(tmp_path, ATEN_CPU_CAPABILITY="avx2")
    assert narrow.stdout.splitlines()[-1] == "64.0"
    names = sorted(folder.name.split("-")[0] for folder in tmp_path.iterdir())
    assert names == ["avx2", "avx512"]


@pytest.mark.slow
def test_after_a_killed_compilation_the_next_process_compiles_again(tmp_path: Path):
    def run_it() -> subprocess.CompletedProcess[str]:
        return run_once(tmp_path)

    assert run_it().stdout.splitlines()[-1] == "64.0"
    libraries = [file for file in tmp_path.rglob("*.so") if file.stat().st_size > 10_000]
    assert libraries
    past = time.time() - 60
    for library in libraries:
        library.write_bytes(library.read_bytes()[:3_000])
        os.utime(library, (past, past))
    again = run_it()
    assert again.stdout.splitlines()[-1] == "64.0"
    assert "is no whole library: removed" in again.stderr


def test_a_library_outside_the_compilers_cache_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    foreign = tmp_path / "libforeign.so"
    foreign.write_bytes(b"")

    def load() -> None:
        raise ImportError(f"{foreign}: file too short")

    with pytest.raises(CompileError, match=r"^compiling failed: .*use the eager engine$"):
        without_broken_libraries(load)
    assert foreign.exists()


def test_an_error_of_the_arithmetic_is_not_called_the_compilers():
    def fail() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1") as caught:
        without_broken_libraries(fail)
    assert not isinstance(caught.value, CompileError)


def test_two_models_do_not_share_or_exhaust_their_graphs(counter: CompileCounter):
    for number in range(3):
        model = random_model(seed=number)
        found = run(compiled_engine(model, CompileLedger()), model, [1, 2], max_new_tokens=3)
        assert found == run(eager_engine(model), model, [1, 2], max_new_tokens=3)


def test_a_context_that_is_no_power_of_two_can_be_used_to_its_end(counter: CompileCounter):
    model = random_model(raw_config(decoder={"max_position_embeddings": 100}))
    options = {"max_new_tokens": 6, "ignore_eos": True}
    prompt = [number % 50 for number in range(94)]
    found = run(compiled_engine(model, CompileLedger()), model, prompt, **options)
    assert found == run(eager_engine(model), model, prompt, **options)


def test_the_ledger_counts_graphs_by_stage(model: GraniteSpeech, counter: CompileCounter):
    ledger = CompileLedger()
    engine = compiled_engine(model, ledger)
    run(engine, model, [1, 2, 3], max_new_tokens=4, ignore_eos=True)
    assert ledger.graphs == {"prefill": 1, "decode": 1}
    assert set(ledger.seconds) == {"prefill", "decode"}
    assert all(seconds > 0 for seconds in ledger.seconds.values())
    run(engine, model, [1, 2, 3, 4], max_new_tokens=4, ignore_eos=True)
    assert ledger.graphs == {"prefill": 1, "decode": 1}


def test_an_unknown_engine_is_named(lab: Lab):
    with pytest.raises(ValueError, match="engine is 'turbo'; expected 'eager' or 'compile'"):
        lab.engine("turbo")


def test_odd_shapes_of_model_trace_whole():
    # 5 heads of 24, window 12, three projector layers, one shared key head, untied.
    raw = raw_config(
        encoder={"hidden_dim": 60, "num_heads": 5, "dim_head": 24, "num_layers": 3},
        projector={
            "encoder_hidden_size": 60,
            "num_hidden_layers": 3,
            "cross_attention_frequency": 2,
        },
        decoder={"num_key_value_heads": 1},
        window_size=12,
        downsample_rate=3,
        tie_word_embeddings=False,
    )
    model = random_model(raw)
    how = {"backend": "eager", "fullgraph": True, "dynamic": False}
    with torch.inference_mode():
        encoded = torch.compile(encode_stage(model), **how)(
            torch.randn(1, 40, 160), torch.tensor([33]), None
        )
        audio = torch.compile(project_stage(model), **how)(encoded.frames, None)
        assert audio.shape == (1, 16, 32)
        cache = allocate_cache(
            model.config.decoder, batch=1, num_slots=32, dtype=torch.float32,
            device=torch.device("cpu"),
        )  # fmt: skip
        ids = torch.tensor([[1, *[AUDIO_ID] * 16, 2]])
        torch.compile(prefill_stage(model), **how)(ids, audio, torch.tensor([[17]]), cache, None)
        logits = torch.compile(decode_stage(model), **how)(
            torch.tensor([[3]]), torch.tensor([[18]]), cache, None
        )
    assert logits.shape == (1, 1, model.config.decoder.vocab_size)


@pytest.mark.slow
def test_compiled_stages_agree_with_eager_within_rounding(lab: Lab, noise: Callable[..., Tensor]):
    compiled, eager = compiled_engine(lab.model, CompileLedger()), lab.engine("eager")
    features = lab.feature_extractor(noise(0.4))[None]
    lengths, lora = torch.tensor([features.shape[1]]), switch([True], like=features)
    with torch.inference_mode():
        for found, expected in zip(
            compiled.encode(features, lengths, lora),
            eager.encode(features, lengths, lora),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_beams_compile_too(lab: Lab, noise: Callable[..., Tensor]):
    options = {"max_new_tokens": 8, "decoding": "beam", "num_beams": 2}
    found, expected = (
        lab.transcribe(noise(0.3), engine=engine, **options).token_ids
        for engine in ("compile", "eager")
    )
    assert found == expected


def test_instructions_that_no_graph_needs_are_not_tried(monkeypatch: pytest.MonkeyPatch):
    class VecAVX2:
        pass

    class VecAMX(VecAVX2):
        pass

    plain, settings = VecAVX2(), SimpleNamespace(vec_isa_ok=None)
    modules = {
        "torch._inductor.config": SimpleNamespace(cpp=settings),
        "torch._inductor.cpu_vec_isa": SimpleNamespace(supported_vec_isa_list=[VecAMX(), plain]),
    }
    monkeypatch.setattr(compiling, "import_module", modules.__getitem__)
    trust_the_processor()
    assert settings.vec_isa_ok is True
    assert modules["torch._inductor.cpu_vec_isa"].supported_vec_isa_list == [plain]
    settings.vec_isa_ok = False  # as TORCHINDUCTOR_VEC_ISA_OK=0 has it
    modules.pop("torch._inductor.cpu_vec_isa")
    trust_the_processor()
    assert settings.vec_isa_ok is False
