"""What the words of an injection's flags mean, as far as that can be told without a model."""

from __future__ import annotations

from headtool import folder
from headtool import options as opt
from headtool.errors import HeadtoolError, unknown

SITES = ("q", "k", "v", "scores", "weights", "out")  # those of models/sites.py, which takes torch to import
DETECTORS = "headtool.faults.detectors"
SETS = {
    "cheap": ("range", "masked", "rowsum"),
    "standard": ("range", "masked", "scores-row"),
    "strict": ("range", "masked", "scores-row", "rowsum", "out-checksum", "bit-sum"),
}
TYPES = {"fp16": ("float16", 16), "bf16": ("bfloat16", 16), "fp32": ("float32", 32), "fp64": ("float64", 64)}
WIDEST = "fp32"  # that --dtype auto comes to
WORDS = {"bits": ("all",), "layers": ("first", "all", "random"), "heads": ("all",), "seeds": ()}  # beside numbers


def sites(text: str) -> tuple[str, ...]:
    """The sites of a list, each once, or all. Raises HeadtoolError for an unknown one and an empty list."""
    if text.strip() == "all":
        return SITES
    asked = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for site in asked:
        if site not in SITES:
            raise unknown("site", site, SITES)
    if not asked:
        raise HeadtoolError("--sites is empty", hint=f"the sites are {', '.join(SITES)}")
    return asked


def detectors(text: str) -> tuple[str, ...]:
    """The detectors of a set, or of a comma-separated list of sets and names, each once; of "none" none.

    Raises HeadtoolError for an unknown name and an empty list.
    """
    found: list[str] = []
    for word in () if text == "none" else (word.strip() for word in text.split(",")):
        if word in SETS:
            found += SETS[word]
        elif word:
            if word not in folder.names(DETECTORS):
                folder.load(DETECTORS, word, "detector")  # a plug-in's, or an error that says which there are
            found.append(word)
    if not found and text != "none":
        raise HeadtoolError("--detect is empty", hint=f"a set ({', '.join(SETS)}), names of detectors, or none")
    return tuple(dict.fromkeys(found))


def numbers(dtype: str, **lists: str) -> None:
    """Raise HeadtoolError for bits, layers, heads or seeds that are neither numbers nor one of the flag's words, and for bits
    that numbers of the dtype do not have.
    """
    for name, text in lists.items():
        if text in WORDS[name]:
            continue
        found = opt.numbers(text, f"--{name}")
        if name == "bits":
            check_bits(found, *TYPES[WIDEST if dtype == "auto" else dtype])


def check_bits(bits: list[int], kind: str, width: int) -> None:
    """Raise HeadtoolError for a bit that numbers of a kind, of so many bits, do not have."""
    beyond = [bit for bit in bits if bit >= width]
    if beyond:
        hint = "--bits all takes them all; --dtype fp32 has 0 to 31" if beyond[0] < 32 else "--bits all takes them all"
        raise HeadtoolError(f"--bits {beyond[0]}: a {kind} has bits 0 to {width - 1}", hint=hint)
