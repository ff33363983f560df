"""`letheon requests`: the commands that look for rows, erase them, check evidence and forget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Quiet, Sets, command, print_json, print_rich, quiet_if, say, spec

DeskFolder = Annotated[Path, typer.Option("--desk", envvar="LETHEON_DESK", help="Folder of the desk.")]


def locate(
    request: Annotated[str, typer.Argument(metavar="ID", help="A request.")],
    accept: Annotated[Path | None, typer.Option(help="Take the review file as a person has left it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take all that was found, without a review; only whole names count then.")] = False,
    set_: Sets = None,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Find the rows that a request is about, and write a file in which a person says which of them stay.

    Looks for equal rows and names, near duplicates and, with `--set embedder=FOLDER`, rows of like meaning. Read the review file, set
    `keep` where a row stays, and give it back with `--accept FILE`.
    """
    from letheon.core.errors import SettingsError
    from letheon.core.settings import parse_settings, parse_value
    from letheon.ledger.desk import Desk
    from letheon.ledger.review import read_review, write_review

    opened = Desk.open(desk)
    if accept is not None:
        if yes or set_:
            raise SettingsError("`--accept` takes a review that was made before", "Leave out `--yes` and `--set`")
        opened.get(request)
        hits = read_review(accept, opened.hits(request))
    else:
        from letheon.ledger.locate import LocateSettings
        from letheon.ledger.locate import locate as search

        values = dict(_assignment(text) for text in set_ or ())
        if yes:  # nobody looks: initials and misspelt names may be somebody else's
            values.setdefault("partial", "false")
        settings = parse_settings(LocateSettings, {key: parse_value(value) for key, value in values.items()}, "letheon requests locate")
        asked = opened.get(request)
        opened.searchable(asked)
        hits = search(asked.what, {one.name: opened.corpus(one.name) for one in opened.corpora()}, settings)  # type: ignore[arg-type]
        opened.found(request, hits)
        write_review(opened.review(request), hits)
    found = {how: sum(hit.how == how for hit in hits) for how in ("exact", "given", "near", "semantic")}
    ready = bool(hits) and (accept is not None or yes)
    if ready:
        opened.located(request, hits)
    facts = next((one.facts for one in reversed(opened.history(request)) if one.kind == "located"), {}) if ready else {}
    review = None if accept is not None or not hits else str(opened.review(request))
    if as_json:
        found |= {"kept": sum(hit.keep for hit in hits)}
        print_json({"request": request, "state": opened.get(request).state, **found, "review": review, "again": facts.get("again", [])})
        return
    if not hits:
        opened.review(request).unlink(missing_ok=True)
        typer.echo(f"{request}: nothing was found in the corpora; it stays received")
        return
    words = ", ".join(f"{count} {how}" for how, count in found.items() if count)
    typer.echo(f"{request}: {'located, ' if ready else ''}{words}, {sum(hit.keep for hit in hits)} of these stay")
    if facts.get("again"):
        typer.echo(f"Some of these rows were erased before: {', '.join(facts['again'])}")
    if not ready:
        typer.echo(f"Read {review}, then `letheon requests locate {request} --accept {review}`")


def fulfil(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Located requests; all of them make one new model.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are located.")] = False,
    method: Annotated[str | None, typer.Option(help="Erasing method, such as `npo` or `npo:beta=0.2`.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe; its subject, data and out are those of the desk.")] = None,
    audit: Annotated[str | None, typer.Option(metavar="SPEC", help="Audit; default: `general`. Earlier requests are audited too.")] = None,
    retrained: Annotated[str | None, typer.Option(metavar="SPEC", help="Model that never saw an erased row: `hf:path=DIR`.")] = None,
    set_: Sets = None,
    forget_texts: Annotated[
        bool, typer.Option("--forget-the-forget-set", help="Afterwards keep digests of the erased rows only (see below).")
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Give up an interrupted fulfilment instead of going on with it.")] = False,
    desk: DeskFolder = Path("desk"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Erase the rows of requests from the newest model, audit the result, and sign evidence.

    Rows of earlier batches are forgotten again, and audited again. After an interruption, however it came, the same command goes on.

    With `--forget-the-forget-set` the desk removes the text of these requests and of their rows: from the ledger, the review files,
    findings and report. What stays are digests under secret salts, by which the same row is recognised if it is asked for again;
    `letheon requests forget ID --salt` destroys a salt. The desk cannot remove what lies elsewhere: EARLIER MODELS STILL KNOW THE ROWS, the
    corpus files hold them until you delete them there, and so do backups. The evidence names these copies.
    """
    quiet_if(quiet)
    from letheon.core.errors import DataError, SettingsError
    from letheon.ledger.desk import Desk
    from letheon.ledger.fulfil import fulfil as work
    from letheon.ledger.recipes import values_of

    opened = Desk.open(desk)
    if all_ and ids:
        raise SettingsError("`--all` was given beside requests", "Give one of them")
    chosen = [one.id for one in opened.all("located")] if all_ else list(ids or ())
    waiting = opened.job()
    if not chosen and waiting is None:
        hint = "`letheon requests locate ID` comes before" if all_ else "Give requests, or `--all`"
        raise DataError("There is nothing to fulfil" if not all_ else "There is nothing to fulfil: no request is located", hint)
    given = {"method": None if method is None else spec(method, "--method", "npo:beta=0.2").model_dump()}
    given["audit"] = None if audit is None else spec(audit, "--audit", "general:limit=100").model_dump()
    given["retrained"] = None if retrained is None else spec(retrained, "--retrained", "hf:path=DIR").model_dump()
    values = values_of(recipe, {key: value for key, value in given.items() if value is not None}, set_ or ())
    made = work(opened, chosen, values, forget_texts=forget_texts, anew=anew, progress=not quiet, command=command())
    if as_json:
        print_json([{**one.model_dump(mode="json"), "evidence": [str(opened.evidence(id_)) for id_ in one.requests]} for one in made])
        return
    for one in made:
        typer.echo(f"generation {one.number}: {len(one.requests)} request{'s' if len(one.requests) > 1 else ''}, verdict: {one.verdict}")
        typer.echo(opened.model_folder(one).parent / "report.html")


def verify(
    bundle: Annotated[Path, typer.Argument(help="Evidence bundle, `evidence/ID.intoto.jsonl`.")],
    model: Annotated[Path | None, typer.Option(help="Folder of the model that came out; default: that of the desk.")] = None,
    key: Annotated[list[Path] | None, typer.Option(help="Public key that you trust; default: that of the desk.")] = None,
    before: Annotated[Path | None, typer.Option(help="Folder of the model that came in.")] = None,
    findings: Annotated[Path | None, typer.Option(help="findings.json; default: beside the model.")] = None,
    report: Annotated[Path | None, typer.Option(help="report.html; default: beside the model.")] = None,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Check an evidence bundle offline, and say what it proves and what it does not.

    A desk is not needed: give `--model` and `--key`. Exit code 1: a check failed.
    """
    from letheon.core.errors import DataError
    from letheon.ledger.verify import verify as look

    made = None
    if (desk / "ledger.db").is_file() and (model is None or not key):
        from letheon.ledger.desk import Desk

        opened = Desk.open(desk)
        made = next((one for one in opened.generations() if bundle.name.partition(".")[0] in one.requests), None)
        model = opened.model_folder(made) if model is None and made else model
        before = opened.model_folder(opened.generations()[made.number - 1]) if before is None and made else before
        key = key or [opened.keys_folder / "desk.pub"]
    if not key:
        raise DataError("There is no key to trust", "Give `--key desk.pub`, or `--desk DIR`")
    found = look(bundle, model, key, before=before, findings=findings, report=report, request=_filed(bundle))
    if as_json:
        print_json({"good": found.good, "checks": [vars(one) for one in found], "said": list(found.said)})
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        for check in found:
            table.add_row(check.result, Text(check.name), Text(check.text))
        print_rich(table)
        for sentence in found.said:
            typer.echo(sentence)
    if not found.good:
        raise typer.Exit(1)


def _filed(bundle: Path) -> str | None:
    """The request that a bundle is filed under, where it lies among the evidence of a desk; elsewhere it may have any name."""
    folder = bundle.absolute().parent
    return bundle.name.removesuffix(".intoto.jsonl") if folder.name == "evidence" and (folder.parent / "ledger.db").is_file() else None


def forget(
    request: Annotated[str, typer.Argument(metavar="ID", help="A request that is fulfilled or refused.")],
    salt: Annotated[bool, typer.Option("--salt", help="Destroy the salt too: nobody can tell any more what it was about.")] = False,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Remove the text of a request from the ledger and its review file; with `--salt` also what could recognise its rows.

    Findings and reports that were not made with `--forget-the-forget-set` may still show rows; they are named.
    """
    from letheon.ledger import forget as work
    from letheon.ledger.desk import Desk

    opened = Desk.open(desk)
    if opened.get(request).what is not None or not salt:
        work.texts(opened, [request])
    if salt:
        work.salt(opened, request)
    left = [str(path) for path in work.left(opened, request)]
    if as_json:
        print_json({"request": request, "salt": not salt, "still_told_by": left})
        return
    typer.echo(f"{request}: forgotten{', with its salt' if salt else ''}")
    for path in left:
        say("warning", f"{path} still shows rows of this request, and its evidence is bound to it")


def _assignment(text: str) -> tuple[str, str]:
    from letheon.core.errors import SettingsError

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingsError(f"`--set` takes key=value, got {text!r}", "For example `--set near=0.7`")
    return key.strip(), value
