"""headtool download: what the hub refuses, or cannot be asked for."""

from bad_input.case import case

TINY = "someone/tiny"
THERE = "a hub that has it"
CASES = (
    case("download someone/gated --out models", "someone/gated: this model is gated: access has not been granted", hub=True),
    case("download someone/nothing --out models", "someone/nothing: the hub has no such repository (or it is private)", hub=True),
    case(f"download {TINY}@nonsense --out models", f"{TINY}@nonsense: the hub has no such revision", THERE, hub=True),
    case("download ./folder --out models", "./folder: the hub has no names like this one", hub=True),
    case(f"download {TINY} --include *.nothing", f"{TINY}: no file fits", THERE, hub=True),
    case(f"download {TINY}", f"{TINY}: the hub cannot be reached and the files are not in the cache", "offline", code=1),
)  # fmt: skip
