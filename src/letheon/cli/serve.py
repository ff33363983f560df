"""`letheon serve`: a guarded model behind OpenAI's interface."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Pickle, Quiet, Remote, Sets, Template, model_choice, quiet_if


def serve(
    model: Annotated[str | None, typer.Argument(help="Hugging Face folder or hub name; not needed with --desk.")] = None,
    desk: Annotated[Path | None, typer.Option(help="Serve the newest model of this desk and its ledger.", envvar="LETHEON_DESK")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="How clients call the model; default: the name of its folder.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token that opens the ledger (or LETHEON_TOKEN).")] = None,
    new_token: Annotated[bool, typer.Option("--new-token", help="Write a new token into --token-file and end.")] = False,
    api_key_file: Annotated[Path | None, typer.Option(help="File with keys that open /v1, one a line; without it /v1 is open.")] = None,
    allow_open: Annotated[bool, typer.Option("--allow-open", help="Listen on a public address without keys.")] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name for the server in requests; may be given again.")] = None,
    runs: Annotated[list[Path] | None, typer.Option(help="Run folder to show on the pages; may be given again.")] = None,
    set_: Sets = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="One line a request on stderr, never what was said.")] = False,
    template: Template = None,
    device: Device = "auto",
    quiet: Quiet = False,
    allow_pickle: Pickle = False,
    trust_remote_code: Remote = False,
) -> None:
    """Serve a model with its guards to clients of OpenAI's interface.

    Only this computer can reach it unless --host says otherwise. Prompts and answers are never logged. With --desk the newest model of the
    desk answers, new ones take over without a restart, and pages at / show the desk; with a token /admin opens its ledger. Limits such as
    max_new_tokens, batch, rate, max_body and request_seconds are changed with --set.
    """
    quiet_if(quiet)
    from letheon.core.errors import RunError, SettingsError

    try:
        from letheon.serve import access
    except ImportError as error:
        raise RunError(f"The server needs packages that are not installed: {error}", "`pip install letheon[serve]`") from error
    if new_token:
        if token_file is None:
            raise SettingsError("`--new-token` needs `--token-file`", "For example `--token-file token.txt`")
        typer.echo(access.new_secret(token_file))
        return
    if model is None and desk is None:
        raise SettingsError("No model was given", "Give a MODEL, or `--desk DIR`")
    about = {"--name": name, "--template": template, "--allow-pickle": allow_pickle, "--trust-remote-code": trust_remote_code}
    if model is None and (unused := next((flag for flag, value in about.items() if value), None)):
        raise SettingsError(f"`{unused}` is about MODEL, and none was given", "The desk's model is loaded and called as the desk has it")
    import logging

    from letheon.core.settings import parse_settings
    from letheon.flow.recipe import merged
    from letheon.serve import run
    from letheon.serve.app import create_app
    from letheon.serve.settings import ServeSettings

    if any(one.split("=")[0].strip() in ("token", "api_keys") for one in set_ or ()):
        raise SettingsError("Others can see a command line: secrets are read from files", "Give `--token-file` or `--api-key-file`")
    values: dict[str, Any] = {"host": host, "port": port, "allowed_hosts": tuple(allow_host or ()), "access_log": access_log}
    if os.environ.get(access.TOKEN) and token_file is None:
        values["token"] = access.checked([os.environ[access.TOKEN].strip()], f"`{access.TOKEN}`")[0]
    if token_file is not None:
        values["token"] = access.secrets_in(token_file)[0]
    if api_key_file is not None:
        values["api_keys"] = access.secrets_in(api_key_file)
    settings = parse_settings(ServeSettings, merged(values, set_ or ()), "letheon serve")
    log = logging.getLogger("letheon.serve")
    if not settings.loopback and not settings.api_keys:
        if not allow_open:
            raise SettingsError(f"Everybody who reaches {settings.host} could use the model", "Give `--api-key-file`, or `--allow-open`")
        log.warning("Everybody who reaches %s, port %d can use the model", settings.host, settings.port)
    sock = run.listening(settings)
    try:
        opened = None if desk is None else _desk(desk)
        models = {} if model is None else _models(model, name, template, device, allow_pickle, trust_remote_code)
        app = create_app(settings, models, opened, runs=runs or (), load=lambda folder: _placed(folder, device))
        shown = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
        named = ", ".join(f"`{card.id}`" for card in app.state.offered.cards)
        log.info("Serving %s on http://%s:%d (Ctrl-C ends it)", named, shown, sock.getsockname()[1])
        run.run(app, settings, sock)
    finally:
        sock.close()


def _desk(folder: Path) -> Any:
    from letheon.ledger.desk import Desk

    return Desk.open(folder)


def _models(path: str, name: str | None, template: str | None, device: str, allow_pickle: bool, trust_remote_code: bool) -> dict[str, Any]:
    from letheon.core import registry

    subject = registry.make(model_choice(path, template, allow_pickle, trust_remote_code), "subjects").build()
    return {name or Path(path).resolve().name if Path(path).is_dir() else name or path: _on(subject, device)}


def _placed(folder: Path, device: str) -> Any:
    from letheon.subjects.hf import load

    return _on(load(folder), device)


def _on(subject: Any, device: str) -> Any:
    from letheon.core.run import Run

    return subject.to(Run(device=device).device)
