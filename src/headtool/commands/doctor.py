"""headtool doctor: is everything there that headtool needs, and what is to be done where it is not."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from headtool import options as opt
from headtool.console import Console
from headtool.errors import FAILED, HeadtoolError

Timeout = Annotated[
    float,
    opt.flag(
        "--timeout", min=0.1, max=600, metavar="SECONDS", help="How long to wait for the hub.", group=opt.GROUP_RUN
    ),
]


def command(
    timeout: Timeout = 3.0,
    config: opt.Config = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> list[Any]:
    """Check the environment: versions, device, memory, hub, plug-ins, completion, with a hint for each thing amiss.

    [bold]headtool doctor[/]
    [bold]headtool doctor --json[/]

    Exit code 0: headtool works here (a note is something it does without); 1: something that it needs is amiss.
    """
    from headtool import checkup

    console = Console(quiet=quiet, json=json)
    found = list(checkup.look(timeout, debug))
    amiss = [finding.name for finding in found if finding.state == "amiss"]
    shown = [finding for finding in found if finding.state != "ok"] if quiet else found
    console.table(
        ("what", "state", "found", "hint"),
        [(finding.name, finding.state, finding.found, finding.hint) for finding in shown],
        {"ok": not amiss, "findings": [dataclasses.asdict(finding) for finding in found]},
    )
    if amiss:
        raise HeadtoolError(
            f"amiss: {', '.join(amiss)}", hint="the last column of the table says what helps", code=FAILED
        )
    return found
