"""headtool download: a model from the hub, whole and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError

GROUP = "Download"
ModelId = Annotated[
    str,
    typer.Argument(metavar="MODEL_ID", help="A hub id, such as Qwen/Qwen3-0.6B (or id@revision).", show_default=False),
]
Revision = Annotated[
    str | None, opt.flag("--revision", metavar="REV", help="A branch, tag or commit; default main.", group=GROUP)
]
Out = Annotated[
    Path | None,
    opt.flag(
        "--out",
        metavar="DIR",
        help="Put the files in DIR/ORG/NAME; default: the hub's cache.",
        group=GROUP,
        parser=opt.place,
    ),
]
Include = Annotated[
    str | None,
    opt.flag("--include", metavar="GLOBS", help="Only files that fit one of these, such as '*.json'.", group=GROUP),
]
Exclude = Annotated[
    str | None, opt.flag("--exclude", metavar="GLOBS", help="No files that fit one of these.", group=GROUP)
]
Token = Annotated[
    str | None,
    opt.flag("--token", help="An access token of the hub; default HF_TOKEN, or the one logged in with.", group=GROUP),
]


def command(
    model_id: ModelId,
    revision: Revision = None,
    include: Include = None,
    exclude: Exclude = None,
    token: Token = None,
    out: Out = None,
    dry_run: opt.DryRun = False,
    config: opt.Config = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> Path:
    """Download a model from the hub: safetensors, configuration, tokenizer.

    [bold]folder=$(headtool download Qwen/Qwen3-0.6B)[/]
    [bold]headtool download Qwen/Qwen3-0.6B --out models --revision main[/]
    [bold]headtool download Qwen/Qwen3-0.6B --include 'config.json,tokenizer*' --dry-run[/]

    A broken transfer is taken up again; files that are whole are kept. No pickles unless --include names them. Prints the folder.
    """
    from headtool.models import fetch

    console = Console(quiet=quiet, verbose=verbose, json=json)
    opt.named(revision=revision, include=include, exclude=exclude, token=token)
    repo, _, pinned = str(model_id).partition("@")
    if not repo.strip():
        raise HeadtoolError("MODEL_ID is empty", hint="a hub id is NAME or OWNER/NAME")
    if pinned and revision:
        raise HeadtoolError(f"{model_id} --revision {revision}: two revisions", hint="give one of them")
    wish = fetch.Wish(
        repo,
        revision or pinned or None,
        opt.globs(include),
        opt.globs(exclude),
        token,
        Path(out) if out is not None else None,
    )
    if dry_run:
        files = fetch.listed(wish)
        total, left = (sum(size for size, missing in files.values() if missing or every) for every in (True, False))
        lines = [f"{name}\t{size}\t{'missing' if missing else 'there'}" for name, (size, missing) in files.items()]
        lines += [f"total\t{total}", f"missing\t{left}"]
        fields = {
            "id": repo,
            "files": {n: size for n, (size, _) in files.items()},
            "bytes": total,
            "missing_bytes": left,
        }
        console.result("\n".join(lines), fields)
        return wish.folder or Path()
    found = fetch.fetch(wish, console)
    console.detail(f"{repo} at commit {found.commit}: {len(found.files)} files")
    told = {"folder": str(found.folder), "id": repo, "commit": found.commit, "files": found.files}
    console.result(str(found.folder), told | {"bytes": sum(found.files.values())})
    return found.folder
