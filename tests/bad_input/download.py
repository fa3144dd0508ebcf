"""headtool download: what the hub refuses, or cannot be asked for."""

from bad_input.case import case, file

TINY = "someone/tiny"
THERE = "a hub that has it"
CASES = (
    case("download someone/gated --out models", "someone/gated: this model is gated: access has not been granted", hub=True),
    case("download someone/nothing --out models", "someone/nothing: the hub has no such repository (or it is private)", hub=True),
    case(f"download {TINY}@nonsense --out models", f"{TINY}@nonsense: the hub has no such revision", THERE, hub=True),
    case("download ./folder --out models", "./folder: the hub has no names like this one", hub=True),
    case(f"download {TINY} --include *.nothing", f"{TINY}: no file fits", THERE, hub=True),
    case("download ''", "MODEL_ID is empty"),
    case("download a/b/c", "a/b/c: the hub has no names like this one", hub=True),
    case(f"download {TINY}@main --revision old", f"{TINY}@main --revision old: two revisions"),
    case(f"download {TINY} --revision ''", "--revision is empty"),
    case(f"download {TINY} --include ''", "--include is empty"),
    case(f"download {TINY} --out ''", "--out is empty"),
    case(f"download {TINY} --out file", f"{TINY}: not a directory: ...", "`file` is a file", file("file", "x"), hub=True),
    case(f"download {TINY}", f"{TINY}: HF_HUB_OFFLINE is set and the files are not in the cache", "offline", code=1),
)  # fmt: skip
