"""A session as text for a terminal: every number with its unit.

In: the session's JSON and the judged bars. Out: one string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.bars import Bar
from benchmarks.moved import bytes_per_second, share_of_reachable
from benchmarks.numbers import faster
from benchmarks.systems import PEER_EAGER, SYSTEMS

Found = Mapping[str, Any]


def session_text(found: Found, bars: Sequence[Bar]) -> str:
    """Write the whole page."""
    lines = [*_machine(found)]
    for shape in found["shapes"]:
        lines += ["", *_shape(found, shape)]
    lines += ["", *_extras(found.get("extras", {})), quality_text(found.get("quality", {}))]
    lines += ["", *_bars(bars)]
    lines += [f"not measured: {text}" for text in found["failures"]]
    return "\n".join(lines)


def _machine(found: Found) -> Iterator[str]:
    machine, ceilings = found["machine"], found["ceilings"]
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['cpu_class']}, torch {machine['torch']}, {found['when']}"
    )
    yield (
        f"measured: copy {ceilings['copy_bytes_per_s'] / 1e9:.1f} GB/s, float32 weights "
        f"{ceilings['dtypes'][0]['gemv_bytes_per_s'] / 1e9:.1f} GB/s"
    )
    if machine["others_cpu_share"] is not None:
        busy = machine["others_cpu_share"] + machine["stolen_share"]
        yield f"others used {100 * busy:.0f} % of the processor during the run"


def _shape(found: Found, shape: Found) -> Iterator[str]:
    total = sum(shape["parameters"].values())
    yield f"{shape['name']}: {total / 1e6:.1f} M parameters, {shape['num_tokens']} new tokens"
    yield (
        f"  {'start-up':<40}{'import s':>9}{'load s':>9}{'cold s':>9}{'graphs later':>14}"
        f"{'peak MB':>10}"
    )
    for name, row in shape["systems"].items():
        yield (
            f"  {SYSTEMS[name].title:<40}{row['import_s']:>9.1f}{row['load_s']:>9.1f}"
            f"{row['cold_start_s']:>9.1f}{row['later_graphs']:>14}{row['peak_bytes'] / 1e6:>10.0f}"
        )
    for seconds, rows in shape["lengths"].items():
        yield f"  {seconds + ' s':<40}{'median ms':>11}{'ms/token':>10}  against transformers eager"
        for name, row in rows.items():
            against = faster(rows, PEER_EAGER, name, paired=shape["together"])
            shown = "" if against is None else f"{against['ratio']:.2f}x faster"
            if against is not None and against["n"] >= 6:
                shown += f" ({against['low']:.2f} to {against['high']:.2f})"
            per = "n/a" if row["ms_per_token"] is None else f"{row['ms_per_token']:.2f}"
            yield f"  {SYSTEMS[name].title:<40}{row['median_ms']:>11.1f}{per:>10}  {shown}"
            rate = bytes_per_second(shape, seconds, name)
            share = share_of_reachable(found, shape, seconds, name)
            read = ""
            if rate is not None and share is not None:
                read = f"; reads {rate / 1e9:.1f} GB/s ({100 * share:.0f} %)"
            yield f"    {_phases(row)}{read}{_tokens(row)}"


def _phases(row: Found) -> str:
    return ", ".join(f"{name} {ms:.1f}" for name, ms in row["phases_ms"].items())


def _tokens(row: Found) -> str:
    notes = []
    if "first_difference" in row:
        at = row["first_difference"]
        notes.append("tokens equal" if at is None else f"TOKENS DIFFER from token {at}")
    if row["late_graphs"]:
        notes.append(f"{row['late_graphs']} graphs compiled while timing")
    if not row["same_every_time"]:
        notes.append("tokens changed between runs")
    return f"; {', '.join(notes)}" if notes else ""


def _extras(extras: Found) -> Iterator[str]:
    for name, row in extras.get("batch", {}).items():
        same = "equal" if row["first_difference"] is None else "DIFFERENT"
        yield (
            f"{row['shape']}, {SYSTEMS[name].title}: {row['rows']} clips of {row['seconds']:g} s "
            f"at once {row['batch_ms']:.0f} ms, one by one {row['one_by_one_ms']:.0f} ms: "
            f"{row['times']['ratio']:.2f}x, tokens {same}"
        )
        yield f"    {_phases(row)}"
    if "lengths" in extras:
        row = extras["lengths"]
        yield (
            f"warm-up: {row['first_graphs']} graphs in {row['warm_up_s']:.1f} s; then "
            f"{row['lengths']} lengths x LoRA on and off: {row['later_graphs']} more"
        )
    if "package" in extras:
        row = extras["package"]
        yield (
            f"package: built in {row['build_s']:.0f} s; ready in {row['ready_s']:.2f} s, loading "
            f"{row['load_s']:.2f} s of them, {row['graphs']} graphs compiled"
        )
    if "recordings" in extras:
        yield from _recordings(extras["recordings"])
    for row in extras.get("long", ()):
        yield (
            f"{row['minutes']:g} minutes: {row['end_to_end_ms'] / 1000:.1f} s, {row['words']} "
            f"words, peak memory {row['peak_bytes'] / 1e6:.0f} MB"
        )


def _recordings(found: Found) -> Iterator[str]:
    yield f"{found['num_recordings']} recordings to their own end:"
    for name, ms in found["median_ms"].items():
        times = found["times"].get(name)
        shown = "" if times is None else f", {times['ratio']:.2f}x faster than without"
        yield f"  {SYSTEMS[name].title:<40}{ms:>11.1f} ms, {found['passes'][name]} passes{shown}"
    differ = found["texts_differ"]
    yield f"  tokens differ in {len(differ)} recordings {', '.join(differ)}".rstrip()


def quality_text(quality: Found) -> str:
    """Write the word error rates of quicker systems, a line each."""
    lines = []
    for name, row in quality.items():
        low, high = row["difference_low"], row["difference_high"]
        cosine = "" if row["cosine"] is None else f", least cosine of logits {row['cosine']:.5f}"
        lines.append(
            f"{name}: word error rate {100 * row['rate']:.2f} % against "
            f"{100 * row['exact_rate']:.2f} % exact, difference {100 * row['difference']:+.2f} "
            f"points ({100 * low:+.2f} to {100 * high:+.2f}), {row['num_recordings']} recordings, "
            f"{row['num_words']} words, {row['texts_changed']} texts changed{cosine}"
        )
    return "\n".join(lines)


def _bars(bars: Sequence[Bar]) -> Iterator[str]:
    width = max(len(bar.what) for bar in bars)
    yield f"{'what':<{width}}  {'bar':>16}{'found':>10}  verdict"
    for bar in bars:
        yield f"{bar.what:<{width}}  {bar.bar:>16}{bar.shown:>10}  {bar.verdict}"
