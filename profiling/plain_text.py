"""Runs, comparisons, ceilings and tables as text for a terminal.

In: the JSON the other modules make. Out: strings, every number with its unit and its spread; what
is not known is "n/a", never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.products import ENVIRONMENT, INPUTS, OUTPUTS, ROWS, ProductTimes, slower_note
from core.model.int8_products import CHOSEN
from core.model.linear import FEW_ROWS, FLOAT32
from core.model.quantize import MODES
from core.units import counted, format_bytes
from profiling.figures.phase_bars import phase_rows
from profiling.measure.length_table import LengthRow
from profiling.report.compile_section import break_rows
from profiling.report.sentences import end_to_end_said, verdict_rows
from profiling.statistics.baseline import PEAK_MB, PUBLISHED
from profiling.statistics.text_agreement import agreement_said

NOT_KNOWN = "n/a"


def run_text(run: Mapping[str, Any]) -> str:
    """Write one run: phases with their spread, metrics, compiling, the roofline."""
    work, metrics, whole = run["workload"], run["metrics"], run["end_to_end"]
    lines = [
        f"{run['id']}: {work['label']}, {work['clip']['name']} "
        f"({work['clip']['seconds']:.1f} s), {work['dtype']} on {work['device']}",
        f"  {'phase':<14}{'median':>12}{'p90':>12}{'IQR':>12}{'share':>8}   n={whole['n']}",
    ]
    for row in phase_rows(run):
        lines.append(
            f"  {row['name']:<14}{ms(row['median_ms'])}{ms(row.get('p90_ms'))}"
            f"{ms(row.get('iqr_ms'))}{100 * row['share']:>6.1f} %"
        )
    lines.append(f"  {'end to end':<14}{ms(whole['median'])}{ms(whole['p90'])}{ms(whole['iqr'])}")
    gap = metrics["inter_token_ms"]
    waits = f"{gap['median']:.2f} ms (p90 {gap['p90']:.2f})" if gap else NOT_KNOWN
    lines += [
        f"  real-time factor {known(metrics['rtf'], '.4f')}, first token after "
        f"{known(metrics['time_to_first_token_ms'], '.1f')} ms, then one every {waits}",
        f"  {metrics['new_tokens']} new tokens, {known(metrics['new_tokens_per_s'], '.1f')} per "
        "second after the first (prompt and audio not counted)",
        f"  peak memory {size(metrics['peak_memory_bytes'])}, launches per decode step "
        f"{known(metrics.get('launches_per_token'), '.0f')}",
    ]
    if metrics["acceptance"] is not None:
        draft = run["draft"]
        lines.append(
            f"  drafts: {draft['accepted']} of {draft['drafted']} tokens kept "
            f"({100 * metrics['acceptance']:.0f} %) in {draft['passes']} passes"
        )
    if run["memory"]:
        peaks = (f"{row['phase']} {size(row['peak_bytes'])}" for row in run["memory"])
        lines.append(f"  peak above where the phase began: {', '.join(peaks)}")
    if run["profiler_tax"] is not None:
        lines.append(
            f"  profiler overhead {run['profiler_tax']:.2f}x; trace "
            f"{format_bytes(run['trace']['num_bytes'])}, {run['trace']['num_steps']} decode steps"
        )
    lines += _compile_lines(run["compile"]) + _roofline_lines(run["roofline"])
    lines += [f"  warning: {text}" for text in run["warnings"]]
    return "\n".join([*lines, f"  text: {' '.join(run['transcript_text'].split())}"])


def _compile_lines(ledger: Mapping[str, Any] | None) -> list[str]:
    if ledger is None:
        return []
    if ledger.get("packaged_seconds") is not None and not ledger["entries"]:
        return [f"  loaded from a package, built in {ledger['packaged_seconds']:.1f} s"]
    steps = ", ".join(f"{k} {known(v, '.1f')} s" for k, v in ledger["seconds_by_step"].items())
    # Torch does not split the seconds of compilations that a cache cut short.
    unsplit = ledger["seconds"] - sum(v or 0.0 for v in ledger["seconds_by_step"].values())
    steps += f", not split {unsplit:.1f} s" if unsplit > 0.05 else ""
    stages = ", ".join(f"{k} {v:.1f} s" for k, v in ledger["seconds_by_stage"].items())
    caches = "; ".join(
        f"{what}: {n['hits']} hits, {n['misses']} misses" for what, n in ledger["caches"].items()
    )
    guards = known(ledger["guards"], "d")
    lines = [
        f"  compiled {ledger['graphs']} graphs in {ledger['seconds']:.1f} s ({stages})",
        f"    {steps}; guards {guards}; caches {caches}",
    ]
    lines += [
        f"    break: {row['reason']} ({row['count']}){_at(row)}" for row in break_rows(ledger)
    ]
    return lines + [
        f"    recompiled {entry['stage']}: {entry['recompile_reason']}{_at(entry)}"
        for entry in ledger["recompiles"]
    ]


def _at(row: Mapping[str, Any]) -> str:
    return f" at {row['source']}" if row.get("source") else ""


def _roofline_lines(part: Mapping[str, Any] | None) -> list[str]:
    if part is None:
        return []
    lines = []
    for row in part["rows"]:
        if row["share"] is None:
            continue
        gain = f", compiling {row['expected_gain']:.2f}x" if row["expected_gain"] else ""
        most = f" (never above {row['most_gain']:.1f}x)" if row["expected_gain"] else ""
        lines.append(
            f"  {row['name']:<10} floor {row['floor_ms']:.2f} ms, {100 * row['share']:.0f} % of "
            f"what this machine can, bound by {row['bound']}{gain}{most}"
        )
    if part["expected_gain"]:
        lines.append(f"  expected of compiling, end to end: {part['expected_gain']:.2f}x")
    sheets = (f"{gpu['machine']} {gpu['floor_ms']:.3g} ms" for gpu in part["paper"])
    return [*lines, f"  least time by data sheet (paper, nobody reaches it): {', '.join(sheets)}"]


def comparison_text(found: Mapping[str, Any]) -> str:
    """Write one comparison: ratios, verdicts, tokens, words, break-even, warnings."""
    lines = [
        f"A: {found['a_label']}; B: {found['b_label']} ({found['num_blocks']} blocks)",
        f"  {'phase':<14}{'A':>12}{'B':>12}{'B / A':>8}  95 % interval",
    ]
    for row in verdict_rows(found):
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        bounds = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append(
            f"  {row['name']:<14}{ms(row['a_ms'])}{ms(row['b_ms'])}{ratio:>8}  {bounds:<16} "
            f"{row['verdict']}"
        )
    for row in found["headline"]:
        sides = (
            f"{at.upper()} {ms(row[f'{at}_ms']).strip()}, {size(row[f'{at}_bytes'])}" for at in "ab"
        )
        lines.append(f"  {row['name']}: {'; '.join(sides)} at its peak")
    for row in found["memory"]:
        lines.append(
            f"  memory {row['name']:<14} A {size(row['a_bytes'])}, B {size(row['b_bytes'])}"
        )
    if "end_to_end" in found["noise_floor"]:
        low, high = found["noise_floor"]["end_to_end"]
        lines.append(f"  noise, from running A twice: {low:.3f} to {high:.3f}")
    lines.append(f"  {end_to_end_said(found)}")
    lines.append(f"  {agreement_said(found)}")
    lines.append(f"  {found['break_even']}")
    return "\n".join(lines + [f"  warning: {text}" for text in found["warnings"]])


def ceilings_text(found: Mapping[str, Any]) -> str:
    """Write a machine's ceilings, one dtype a line."""
    source = "data sheet" if found["paper"] else "measured"
    lines = [f"{found['machine']} ({source}): copy {found['copy_bytes_per_s'] / 1e9:.1f} GB/s"]
    if found.get("read_bytes_per_s"):
        lines[0] += f", read {found['read_bytes_per_s'] / 1e9:.1f} GB/s"
    for row in found["dtypes"]:
        cached = row["cached_gemv_bytes_per_s"]
        inside = "" if cached is None else f", from cache {cached / 1e9:.1f} GB/s"
        lines.append(
            f"  {row['dtype']:<10} matrix x matrix {row['flops_per_s'] / 1e9:>9.0f} GFLOP/s, "
            f"matrix x vector {row['gemv_bytes_per_s'] / 1e9:>7.1f} GB/s{inside}"
        )
    return "\n".join(lines)


def products_text(found: ProductTimes) -> str:
    """Write the microseconds of each kernel, the kernels in use, and what is slower."""
    one, few, many = FLOAT32.one, FLOAT32.few, FLOAT32.many
    width = max(map(len, found.us)) + 2
    lines = [
        f"one product of {INPUTS} x {OUTPUTS} weights, microseconds of one thread's processor time",
        "  (by the clock: float32-threads, and compiled-row with the bytes of its weights)",
        f"  in use: int8 {CHOSEN.kernel}; float32 {one} for a row, {few} for up to {FEW_ROWS}, "
        f"{many} beyond ({ENVIRONMENT} overrides it)",
        f"  {'rows':<{width}}" + "".join(f"{count:>9}" for count in ROWS),
    ]
    for name, us in found.us.items():
        cells = (f"{us[n]:>9.0f}" if n in us else f"{NOT_KNOWN:>9}" for n in ROWS)
        lines.append(f"  {name:<{width}}" + "".join(cells))
    notes = (slower_note(kind, found) for kind in MODES)
    return "\n".join([*lines, *(f"  {note}" for note in notes if note)])


def table_text(title: str, rows: Sequence[LengthRow], notes: Sequence[str], limit: int) -> str:
    """Write own rows, then the published ones, corrected.

    Args:
        title: of the own rows.
        rows: one a length.
        notes: what could not be measured.
        limit: most new tokens.

    Returns:
        Lines of text.
    """
    head = f"  {'clip':>5}{'total':>11}{'encoder':>10}{'decoder':>11}{'share':>7}{'RTF':>8}"
    head += f"{'new':>6}{'tokens/s':>10}"
    lines = [f"{title} (median of {rows[0].n} runs)" if rows else title, f"{head}{'peak':>12}"]
    for row in rows:
        marks = (" cut at the limit" if row.limited else "") + (
            f" in {row.num_passes} passes" if row.num_passes > 1 else ""
        )
        lines.append(
            f"  {row.seconds:>3g} s{row.total_ms:>8.1f} ms{row.encoder_ms:>7.1f} ms"
            f"{row.decoder_ms:>8.1f} ms{100 * row.decoder_share:>5.0f} %{row.rtf:>8.4f}"
            f"{row.new_tokens:>6}{known(row.tokens_per_s, '.1f'):>10}"
            f"{size(row.peak_memory_bytes):>12}{marks}"
        )
    lines += [f"  not measured: {note}" for note in notes]
    lines += [
        "  decoder: prefill to last token; tokens/s: new tokens after the first over the time",
        f"  after the prefill; at most {limit} new tokens.",
        "Published: Granite Speech 3.3 8B, bfloat16, one H200, eager, one run a cell",
        f"{head}{'published':>12}",
    ]
    for old in PUBLISHED:
        lines.append(
            f"  {old.seconds:>3} s{old.total_ms:>8.1f} ms{old.encoder_ms:>7.1f} ms"
            f"{old.decoder_ms:>8.1f} ms{100 * old.decoder_share:>5.0f} %{old.rtf:>8.4f}"
            f"{old.new_tokens:>6}{old.true_tokens_per_s:>10.1f}{old.tokens_per_s:>12.1f}"
        )
    return "\n".join(
        [
            *lines,
            "  'new' and 'tokens/s' are corrected: the published speed counts 7 prompt tokens and",
            "  30, 102 and 300 audio tokens as if generated. At 30 s the text stops at 128 tokens.",
            f"  Memory bandwidth used: {100 * PUBLISHED[0].bandwidth_share:.1f} % of the data "
            f"sheet's at every length; peak {PEAK_MB} MB is the weights.",
        ]
    )


def trace_text(name: str, data: Mapping[str, Any]) -> str:
    """Write the tables of a trace, and what it does not hold."""
    lines = [f"{name}: {counted(data['num_events'], 'event')}"]
    lines += [f"  note: {note}" for note in data["notes"]]
    lines += [f"  absent: {what}" for what in data["lacks"]]
    for row in data["phases"]:
        launched = "" if row["num_launches"] is None else f"{row['num_launches']:>7}"
        lines.append(
            f"  {row['phase']:<14}{ms(row['wall_ms'])} wall{ms(row['device_ms'])} device"
            f"{launched} {row['launched']}"
        )
    lines += [
        f"  {row['phase']:<13}{row['name'][:44]:<44}{row['num_calls']:>6} calls"
        f"{ms(row['self_ms'])} self"
        for row in data["operators"][:12]
    ]
    for row in data["memory"]:
        lines.append(f"  memory {row['phase']:<14} {size(row['peak_bytes'])} at its peak")
    return "\n".join(lines)


def difference_text(a: str, b: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write where two traces differ most, B less A."""
    lines = [f"{b} (B) against {a} (A), milliseconds inside each call, profiler included"]
    for row in rows[:20]:
        only = f" only in {row['only_in']}" if row["only_in"] else ""
        lines.append(
            f"  {row['difference_ms']:>+9.2f} ms  {row['path'][:70]:<70}"
            f"{ms(row['a_ms'])}{ms(row['b_ms'])}{only}"
        )
    return "\n".join(lines)


def ms(value: float | None) -> str:
    """Write milliseconds in twelve columns."""
    return f"{'n/a':>12}" if value is None else f"{value:>9.2f} ms"


def size(value: float | None) -> str:
    """Write bytes, or n/a."""
    return NOT_KNOWN if value is None else format_bytes(value)


def known(value: float | int | None, form: str) -> str:
    """Write a number in the form asked for, or n/a."""
    return NOT_KNOWN if value is None else format(value, form)
