"""The runs that are disturbed: one row a command. A new command joins by a row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

# They tell times.
OUTSIDE = (
    "manifest.json", "run_config.json", "config.yaml", "run.log", "summary.txt", "tables/performance.csv", "tables/parameters.csv",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run, where its parts are while it goes on (no pattern: it has none), and which of them say that it is well into its
    work, where not any do. "{NAME}" is another job's run directory."""

    name: str
    args: tuple[str, ...]
    parts: str | None = None
    under_way: str | None = None

    def needs(self) -> list[Job]:
        """The jobs whose run directories it reads."""
        return [job for job in JOBS if any(f"{{{job.name}}}" in word for word in self.args)]

    def words(self, out: Path, others: Path) -> list[str]:
        """The call, for a run directory and the folder with the runs of the other jobs."""
        filled = [
            word.format_map({job.name: others / job.name for job in JOBS}) if "{" in word else word
            for word in self.args
        ]
        return [*filled, "--out", str(out)]


PARTS = "parts/*/*.part"
JOBS = (
    Job("score", ("score", "demo", "--scores", "out,ent,task,combined,induction", "--limit", "24", "--batch-size", "4"), PARTS),
    Job("ablation", ("score", "demo-encoder", "--scores", "ablation,gradient,fisher", "--limit", "24", "--batch-size", "4", "--memory", "1MB"), PARTS),
    Job("sampled", ("score", "demo-encoder", "--scores", "ablation", "--limit", "96", "--ablate-error", "0.05"), PARTS),
    Job("finetune", ("finetune", "demo-encoder", "--task", "demo", "--limit", "64", "--subset", "32", "--epochs", "2", "--lr", "1e-3", "--save-steps", "2", "--threads", "1"), "parts/*/checkpoint-*/whole", "parts/*/checkpoint-6/whole"),
    Job("probe", ("finetune", "demo", "--task", "demo", "--probe", "--limit", "64", "--subset", "32", "--epochs", "1", "--lr", "1e-3", "--save-steps", "2", "--threads", "1"), "parts/*/checkpoint-*/whole"),
    Job("inject", ("inject", "demo", "--sites", "q,scores,out", "--bits", "28-31", "--layers", "0-1", "--sequences", "6", "--calibrate", "6", "--runs", "1"), PARTS, "parts/*/trials-*.part"),
    Job("inspect", ("inspect-weights", "demo", "--no-figures", "--threads", "1"), PARTS),
    Job("causal", ("causal-train", "demo", "--task", "addition", "--examples", "24", "--epochs", "1", "--batch-size", "8", "--save-steps", "1", "--no-baselines", "--threads", "1"), "parts/*/*/checkpoint-*/whole"),
    Job("experiment", ("causal-train", "demo", "--experiment", "ablation", "--task", "addition", "--examples", "24", "--epochs", "1", "--batch-size", "8", "--save-steps", "1", "--no-baselines", "--threads", "1"), "parts/*/*/checkpoint-*/whole"),
    Job("report", ("report", "{score}", "--top-k", "5")),
)  # fmt: skip


def results(run: Path) -> dict[str, str]:
    """What a run found: the hash of every table as CSV, of JSON and of weights, by its path."""
    found = {}
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run).as_posix()
        counts = file.suffix in (".csv", ".json", ".jsonl", ".safetensors") and name not in OUTSIDE
        if file.is_file() and counts and not name.startswith(("parts/", ".")):
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found
