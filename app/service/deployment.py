"""Where the app runs and what that allows, from environment variables read once at the start.

In: the environment. Out: :class:`Deployment`. On a public Space models are those of the catalog
and what visitors record is theirs alone; on ZeroGPU nothing can be timed or compiled, and
:attr:`Deployment.no_timing` and :attr:`Deployment.no_compile` say why. docs/deploy.md lists the
variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from core.errors import UserError
from profiling.trace.events import MAX_JSON_BYTES

PUBLIC_TRACE_BYTES = 100_000_000
PERFETTO = "https://ui.perfetto.dev"
ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")

ZERO_GPU_NO_COMPILE = (
    "Compiling is off on ZeroGPU: every request may get a fresh process, so compiled graphs would "
    "be built again each time, which takes longer than the request and uses up your quota."
)
SWITCHED_OFF = "Compiling is switched off where this app runs (--no-compile, GSL_NO_COMPILE)."
ZERO_GPU_NO_TIMING = (
    "Nothing is timed on ZeroGPU: the GPU is lent for seconds, shared, and begins cold, so numbers "
    "would say more about the queue than about the model. The recorded run under Profile was made "
    "on a machine of its own; to measure yours, run the app there."
)
ZERO_GPU_NO_LIVE = (
    "There is no live text on ZeroGPU: it needs the model all the time, and the GPU is lent for "
    "seconds. Record under Transcribe instead, or run the app on your own machine."
)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Settings of the app.

    public: the page is open to anyone. runs: folder of recorded runs, None where each visitor has
    only their own. max_audio_s: the longest recording that is taken, None for any length. api_key:
    the bearer token that the speech API asks for, None for none. password: that of the page.
    perfetto: address of the Perfetto UI that visitors may open traces in, None for none.
    compiles: whether there are compiled stages. second_process: whether the speech API alone, on a
    CPU, runs batches in a second process too. on_space: a Space, where nothing is built before it
    is asked for. gives_way: transcriptions may run between the blocks of a measurement.
    """

    model: str = "tiny"
    device: str | None = None
    dtype: str | None = None
    public: bool = False
    zero_gpu: bool = False
    compiles: bool = True
    second_process: bool = True
    on_space: bool = False
    gives_way: bool = False
    mcp: bool = False
    runs: Path | None = Path("runs")
    max_audio_s: float | None = None
    max_upload_mb: int = 200
    perfetto: str | None = PERFETTO
    api_key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def no_live(self) -> str | None:
        """Say why there is no live text; None where there is."""
        return ZERO_GPU_NO_LIVE if self.zero_gpu else None

    @property
    def max_trace_bytes(self) -> int:
        """Return the largest trace to read, unpacked; reading takes about six times its memory."""
        return PUBLIC_TRACE_BYTES if self.public else MAX_JSON_BYTES

    @property
    def no_compile(self) -> str | None:
        """Say why there is no compiled engine here; None where there is one."""
        if self.zero_gpu:
            return ZERO_GPU_NO_COMPILE
        return None if self.compiles else SWITCHED_OFF

    @property
    def no_timing(self) -> str | None:
        """Say why nothing is measured here; None where it is."""
        return ZERO_GPU_NO_TIMING if self.zero_gpu else None


def read_deployment(environment: Mapping[str, str]) -> Deployment:
    """Read the deployment that the variables describe.

    Returns:
        The deployment.

    Raises:
        UserError: a variable has an unknown value; names it.
    """
    on_space = bool(environment.get("SPACE_ID"))
    public = _switch(environment, "GSL_PUBLIC", on_space)
    zero_gpu = _switch(environment, "SPACES_ZERO_GPU", False)
    runs = environment.get("GSL_RUNS", "" if public else "runs").strip()
    longest = _number(environment, "GSL_MAX_AUDIO_S", 600.0 if public else None)
    upload = _number(environment, "GSL_MAX_UPLOAD_MB", 50.0 if public else 200.0)
    return Deployment(
        model=environment.get("GSL_MODEL", "").strip() or "tiny",
        device=environment.get("GSL_DEVICE", "").strip() or None,
        dtype=environment.get("GSL_DTYPE", "").strip() or None,
        public=public,
        zero_gpu=zero_gpu,
        compiles=not _switch(environment, "GSL_NO_COMPILE", False),
        second_process=_switch(environment, "GSL_SECOND_PROCESS", True),
        on_space=on_space,
        gives_way=_switch(environment, "GSL_GIVE_WAY", False),
        # Gradio reads GRADIO_MCP_SERVER itself; ours is the same switch under our own prefix.
        mcp=_switch(environment, "GSL_MCP", _switch(environment, "GRADIO_MCP_SERVER", False)),
        runs=Path(runs) if runs else None,
        max_audio_s=longest or None,
        max_upload_mb=int(upload or 200),
        perfetto=_address(environment, "GSL_PERFETTO", PERFETTO),
        api_key=environment.get("GSL_API_KEY", "").strip() or None,
        password=environment.get("GSL_PASSWORD", "").strip() or None,
    )


def _switch(environment: Mapping[str, str], name: str, usual: bool) -> bool:
    text = environment.get(name)
    if text is None:
        return usual
    if text.strip().lower() in ON:
        return True
    if text.strip().lower() in OFF:
        return False
    raise UserError(f"{name} is {text!r}; expected 1 or 0")


def _number(environment: Mapping[str, str], name: str, usual: float | None) -> float | None:
    text = environment.get(name, "").strip()
    if not text:
        return usual
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise UserError(f"{name} is {text!r}; expected a number, 0 or more")
    return number


def _address(environment: Mapping[str, str], name: str, usual: str) -> str | None:
    """Read the address of a page: the usual one, another, or none where it is switched off."""
    text = environment.get(name, ON[0]).strip()
    if text.lower() in (*ON, *OFF):
        return usual if text.lower() in ON else None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or set(text) & set("\"'<> "):
        raise UserError(f"{name} is {text!r}; expected an address such as {usual}, or 0 for none")
    return text.rstrip("/")
