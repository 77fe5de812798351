"""What the timings of all processes say, as a document and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelmill.core.evidence import Difference, Interval
from modelmill.measuring.ratios import difference, noise_band, ratio_across
from modelmill.measuring.rounds import Rounds, median_ms
from peers.peers import PEERS
from peers.time_models import AGAIN, BASELINE, OURS

ANY = "any"
ENGINES = {peer.name: peer.engine for peer in PEERS} | {name: runtime.value for name, runtime in OURS.items()}

_CALLED = {
    Difference.FASTER: "faster",
    Difference.SLOWER: "slower",
    Difference.WITHIN_NOISE: "not told apart",
}


def noise_of(processes: Sequence[Rounds]) -> Interval:
    """The ratios around 1 that the baseline shows against itself."""
    return noise_band(ratio_across(processes, BASELINE, AGAIN).interval)


def over_baseline(processes: Sequence[Rounds]) -> dict[str, dict[str, Any]]:
    """Model → milliseconds and the speed-up over the baseline with its interval."""
    found = {}
    for name in processes[0].seconds:
        if name != AGAIN:
            times = ratio_across(processes, BASELINE, name)
            found[name] = {
                "ms": median_ms(processes, name),
                "speedup": times.value,
                "speedup_ci": list(times.interval),
            }
    return found


def against_peers(processes: Sequence[Rounds]) -> dict[str, dict[str, Any]]:
    """Engine, or "any" → how many times as fast the line's fastest model there is as the fastest peer there.

    An engine on which either has no model is left out.
    """
    noise = noise_of(processes)
    names = [name for name in processes[0].seconds if name != AGAIN]
    found = {}
    for scope in (ANY, *(runtime.value for runtime in OURS.values())):
        there = sorted(
            (name for name in names if scope in {ANY, ENGINES[name]}), key=lambda name: median_ms(processes, name)
        )
        ours = next((name for name in there if name in OURS), None)
        peer = next((name for name in there if name not in OURS), None)
        if ours is None or peer is None:
            continue
        times = ratio_across(processes, peer, ours)
        found[scope] = {
            "ours": ours,
            "peer": peer,
            "same_engine": ENGINES[ours] == ENGINES[peer],
            "ratio": times.value,
            "ratio_ci": list(times.interval),
            "difference": difference(times.interval, noise).value,
        }
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """The tables: accuracy, size and speed-ups of all, then ours over the best peer."""
    cells = list(result["cells"])
    lines = [
        f"{result['date']}, {result['hardware']}: {result['processes']} processes of {result['seconds']:g} s a cell.",
        "Speed over PyTorch eager [95 % interval].",
        "",
        "| model | accuracy | size | " + " | ".join(cells) + " |",
        "| --- | --- | --- |" + " --- |" * len(cells),
    ]
    for name in result["accuracy"]:
        size = result["size_ratio"].get(name)
        marked = f"{name} ({result['verdicts'][name]})" if name in result["verdicts"] else name
        words = [marked, f"{result['accuracy'][name]:.4f}", "–" if size is None else f"{size:.3f}"]
        words += [_with_interval(each[name]["speedup"], each[name]["speedup_ci"]) for each in result["cells"].values()]
        lines.append("| " + " | ".join(words) + " |")
    noise = [f"[{low:.2f}, {high:.2f}]" for low, high in result["noise"].values()]
    lines.append("| PyTorch eager against itself | | | " + " | ".join(noise) + " |")
    lines += ["", "Our fastest over the fastest peer; a difference within the noise is none.", ""]
    scopes = [ANY, *(runtime.value for runtime in OURS.values())]
    lines += ["| cell | " + " | ".join(f"on {scope}" for scope in scopes) + " |", "| --- |" + " --- |" * len(scopes)]
    for cell, found in result["against_peers"].items():
        lines.append("| " + " | ".join([cell, *(_versus(found.get(scope)) for scope in scopes)]) + " |")
    searched = ", ".join(f"{target} {seconds:.0f} s" for target, seconds in result["search_seconds"].items())
    lines += ["", f"Searching took {searched}."] if searched else []
    lines += ["", *(f"{name}: did not run: {why}" for name, why in result["failures"].items())]
    return "\n".join(lines).rstrip() + "\n"


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _versus(found: Mapping[str, Any] | None) -> str:
    """A ratio with its interval, whose models they are, and what it is called."""
    if found is None:
        return "–"
    called = _CALLED[Difference(found["difference"])]
    if found["same_engine"] and called == _CALLED[Difference.WITHIN_NOISE]:
        called = "a tie on one engine"
    ours = found["ours"].removeprefix("modelmill on ")
    return f"{_with_interval(found['ratio'], found['ratio_ci'])}: {called} ({ours}; {found['peer']})"
