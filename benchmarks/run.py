"""Run the benchmarks of this folder, one after the other, and write down what came out.

    python benchmarks/run.py [NAME ...] [--list] [--write] [--limit SECONDS]

NAME is a script without bench_ and .py, or one of SETTINGS (default: all of them, in order of their names). Each runs in
a process of its own, with the arguments that SETTINGS has for it, by this Python: install the peers first (dependency group
`peers`) where they are to be measured. What it prints is kept in results/NAME.json with the date, the machine, the versions,
its CPU time and its largest process, also where it fails. From these files are made: the part of RESULTS.md between its
marks (what stands outside of them, such as what did not help, is written by hand and stays), and the table of the README.
--write makes both without running anything.

A script that has something for the README's table prints lines of the form

    headline: WHAT | BESIDE WHAT | RESULT | PEAK MEMORY
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
SETTINGS: dict[
    str, list[str]
] = {  # of those that do not run as they stand, or for hours; A-B is A with other arguments
    "ablation": ["--heads", "2", "--models", "gpt2-5000,gpt2-50257"],
    "ablation-minilm": ["--heads", "12", "--models", "minilm", "--rounds", "2"],
    "causal": ["--batch", "2"],
    "inject": ["--trials", "24"],
    "sampled": ["demo-encoder"],
}
VERSIONS = (
    "headtool", "torch", "transformers", "polars", "numpy", "scipy",
    "transformer-lens", "nnsight", "pyvene", "captum", "pytorchfi", "weightwatcher",
)  # fmt: skip
HEADLINE = "headline: "
# Runs a command and leaves the CPU time of all its processes, and the memory of the largest, in a file.
WATCH = """
import json, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
found = {"cpu_s": None, "peak_mb": None}
try:
    import resource
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1e6 if sys.platform == "darwin" else 1e3
    found = {"cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_mb": round(used.ru_maxrss / unit, 1)}
except ImportError:
    pass
open(sys.argv[1], "w").write(json.dumps(found))
sys.exit(code)
"""
TITLES = ("what", "beside", "result", "peak memory")
RUN = ("<!-- made by benchmarks/run.py -->\n", "<!-- /made by benchmarks/run.py -->")
BENCH = ("<!-- bench -->\n", "<!-- /bench -->")


def names(folder: Path = HERE) -> list[str]:
    """The benchmarks of the folder."""
    scripts = [file.stem.removeprefix("bench_") for file in sorted(folder.glob("bench_*.py"))]
    return sorted({*scripts, *(name for name in SETTINGS if script(name) in scripts)})


def script(name: str) -> str:
    """The script of a benchmark, which may be one with arguments of its own."""
    return name.partition("-")[0]


def machine() -> str:
    """Where this runs, in words."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            cpu = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {cores} cores, {platform.system()}, Python {platform.python_version()}{load}"


def versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run(name: str, folder: Path = HERE, limit: float = 3600) -> dict[str, Any]:
    """Run a benchmark, show what it prints, and return all that is kept of it."""
    arguments = SETTINGS.get(name, [])
    command = [sys.executable, str(folder / f"bench_{script(name)}.py"), *arguments]
    kept: dict[str, Any] = {
        "name": name, "command": shlex.join(["python", f"benchmarks/bench_{script(name)}.py", *arguments]),
        "date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions(),
    }  # fmt: skip
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        usage = Path(scratch) / "usage"
        watched = [sys.executable, "-c", WATCH, str(usage), *command]
        with subprocess.Popen(
            watched, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                out, err = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                _stop(process)
                out, err = process.communicate()
                err += f"\nstopped after {limit:.0f} s"
        used = json.loads(usage.read_text()) if usage.is_file() else {"cpu_s": None, "peak_mb": None}
    lines = out.splitlines()
    kept |= {
        "code": process.returncode,
        "wall_s": round(time.perf_counter() - begun, 1),
        **used,
        "headlines": [_headline(line) for line in lines if line.startswith(HEADLINE)],
        "output": [line.rstrip() for line in lines if not line.startswith(HEADLINE)],
        "errors": err.strip().splitlines()[-10:],
    }
    print(out + err, end="", flush=True)
    return kept


def _headline(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.removeprefix(HEADLINE).split("|")]
    if len(cells) != len(TITLES):
        raise ValueError(f"a headline has {len(TITLES)} cells: {line}")
    return cells


def _stop(process: subprocess.Popen[str]) -> None:
    """End a benchmark and the processes that it has started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def results(folder: Path = HERE) -> list[dict[str, Any]]:
    """What was kept of the benchmarks that are there."""
    files = [folder / "results" / f"{name}.json" for name in names(folder)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def table(kept: Iterable[dict[str, Any]]) -> str:
    """The headlines of all benchmarks."""
    rows = [row for each in kept for row in each["headlines"]]
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def page(kept: list[dict[str, Any]]) -> str:
    """The generated part of RESULTS.md."""
    lines = [table(kept)] if any(each["headlines"] for each in kept) else []
    for each in kept:
        told = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
        peak = f", largest process {each['peak_mb'] / 1e3:.2f} GB" if each["peak_mb"] else ""
        spent = f"{each['cpu_s']:,.0f} CPU s" if each["cpu_s"] is not None else "no times"
        failed = f" It failed with {each['code']}." if each["code"] else ""
        lines += [
            f"## bench_{script(each['name'])}.py, {each['date']}\n",
            f"`{each['command']}`: {spent}{peak}.{failed}",
        ]
        lines += [
            f"{each['machine']}; {told}.\n",
            "```",
            *each["output"],
            *(each["errors"] if each["code"] else []),
            "```\n",
        ]
    return "\n".join(lines)


def put(file: Path, marks: tuple[str, str], text: str) -> None:
    """Replace what stands between the marks of a file; marks that are not there yet go above its first section."""
    begin, end = marks
    whole = file.read_text(encoding="utf-8")
    if begin not in whole:
        above, section, below = whole.partition("\n## ")
        whole = f"{above}\n{begin}{end}\n{section}{below}"
    head, _, rest = whole.partition(begin)
    _, _, tail = rest.partition(end)
    file.write_text(head + begin + text + end + tail, encoding="utf-8", newline="\n")


def write(folder: Path = HERE, readme: Path = README) -> None:
    """RESULTS.md and the README's table, from what was kept."""
    kept = results(folder)
    if kept:
        put(folder / "RESULTS.md", RUN, page(kept))
    if any(each["headlines"] for each in kept):
        put(readme, BENCH, table(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="print what there is to run")
    parser.add_argument("--write", action="store_true", help="write the pages from what was kept, and run nothing")
    parser.add_argument("--limit", type=float, default=3600, metavar="SECONDS", help="stop a benchmark after so long")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(names()):
        parser.error(f"there is no benchmark named {', '.join(sorted(unknown))}; there is {', '.join(names())}")
    if asked.list:
        print("\n".join(names()))
        return
    failed = []
    for name in [] if asked.write else asked.names or names():
        print(f"== {name}", flush=True)
        kept = run(name, limit=asked.limit)
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        failed += [name] if kept["code"] else []
        write()
    if asked.write:
        write()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
