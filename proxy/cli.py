"""The command line."""

import argparse
import json
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from proxy import __version__
from proxy.compiled import stale
from proxy.config import Config, ConfigError, Problem, json_schema, parse, sidecar
from proxy.config.values import bad_listen

# Common practice: 2 is a usage or configuration error.
BAD_CONFIGURATION = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit status."""
    if changed := stale(Path(__file__).parent):
        advice = "`make compile` again, or `make interpreted`"
        print(f"llmproxy: {changed} was changed after it was compiled: {advice}", file=sys.stderr)
        return 1
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except UnicodeDecodeError as error:
        print(f"llmproxy: the configuration is not UTF-8 text ({error.reason})", file=sys.stderr)
        return BAD_CONFIGURATION
    except OSError as error:
        print(f"llmproxy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


# -- what can be said ----------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmproxy", description="A light, byte-transparent gateway in front of LLM servers."
    )
    parser.add_argument("--version", action="version", version=f"LLMProxy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(_command(commands, "run", "serve until SIGTERM; SIGHUP reloads the configuration"))
    check = _command(commands, "check", "read a configuration and list everything that is wrong with it")
    check.add_argument("file", type=Path, metavar="FILE", help="configuration file (YAML or JSON)")
    check.set_defaults(command=_check)
    _add_keys(_command(commands, "keys", "make, list and hash client keys"))
    schema = _command(commands, "schema", "print the configuration's JSON schema, for editors")
    schema.set_defaults(command=_schema)
    demo = _command(
        commands,
        "demo-engine",
        "serve the built-in demo engine, an OpenAI-compatible upstream without a model",
    )
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    demo.add_argument("--port", type=int, default=8001, help="port (default: 8001; 0 takes a free one)")
    demo.set_defaults(command=_demo_engine)
    _add_bench(_command(commands, "bench", "measure what the gateway adds on this machine"))
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str
) -> argparse.ArgumentParser:
    """A command that says of itself what the list of commands says of it."""
    return commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")


def _add_run(run: argparse.ArgumentParser) -> None:
    what = run.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file (YAML or JSON)")
    what.add_argument("--upstream", metavar="URL", help="no file: forward everything to this server")
    what.add_argument("--demo", action="store_true", help="no file: forward to the built-in demo engine")
    run.add_argument("--listen", metavar="HOST:PORT", help="listen here, whatever the configuration says")
    run.set_defaults(command=_run)


_DATABASE_CALLS = {
    "create": "make a key",
    "update": "change what a key may do",
    "delete": "delete a key",
    "rotate": "give a key a second secret, and the old one an end",
    "get": "show a key",
    "sync": "take over a list of keys",
    "audit": "show what was changed, when and by whom",
}


def _add_keys(keys: argparse.ArgumentParser) -> None:
    verbs = keys.add_subparsers(required=True, metavar="VERB")
    new = _command(verbs, "new", "print a new key once, and the entry to put into a key file")
    new.add_argument("--name", default="", help="how logs and records call it")
    new.add_argument("--user-id", default="", help="whom its usage is booked on")
    new.set_defaults(command=_keys_new)
    listing = _command(verbs, "list", "list the keys of a configuration, without anything secret")
    listing.add_argument(
        "-c",
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="configuration that names their sources",
    )
    listing.set_defaults(command=_keys_list)
    hashing = _command(verbs, "hash", "print the SHA-256 of keys given on standard input, one a line")
    hashing.set_defaults(command=_keys_hash)
    for action, about in _DATABASE_CALLS.items():
        call = _command(verbs, action, f"{about} (the database of admin.db_path)")
        call.add_argument(
            "-c",
            "--config",
            type=Path,
            required=True,
            metavar="FILE",
            help="configuration with admin.db_path",
        )
        call.add_argument("fields", nargs="*", metavar="FIELD=VALUE", help="as in the administration API")
        call.set_defaults(command=_keys_call, action=action)


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.description = (
        "Asks a server directly and through a gateway, turn and turn about, and prints the difference: "
        "requests per second, latency, first byte, jitter between chunks, CPU time."
    )
    bench.add_argument("--upstream", metavar="URL", help="your server (default: the built-in demo engine)")
    bench.add_argument("--model", help="which of its models (default: the first it names)")
    bench.add_argument(
        "--seconds",
        type=_positive,
        default=6.0,
        metavar="N",
        help="how long each of three workloads is measured each way (default: 6)",
    )
    bench.epilog = "A key that the server wants is taken from LLMPROXY_UPSTREAM_KEY."
    bench.set_defaults(command=_bench)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


# -- commands ------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from proxy.process import begin_loading

    begin_loading()
    from proxy.workers import serve

    if args.demo:
        from proxy.demo.serve import demo_engine, free_socket

        sock, url = free_socket()
        read = partial(_sidecar, url, args.listen)
        return serve(read(), read, beside=lambda: demo_engine(sock))
    if args.upstream:
        read = partial(_sidecar, args.upstream, args.listen)
    else:
        read = partial(_read, args.config, args.listen)
    config = read()
    for note in config.notes:
        print(f"{args.config}: note: {note}", file=sys.stderr)
    return serve(config, read)


def _check(args: argparse.Namespace) -> int:
    from proxy.runtime.keys import key_tables

    config = _read(args.file, None)
    key_tables(config)  # what is named here and read at start must be good too
    for note in config.notes:
        print(f"{args.file}: note: {note}")
    print(f"{args.file}: good")
    return 0


def _keys_new(args: argparse.Namespace) -> int:
    from secrets import token_bytes

    from proxy.stores.keys_command import new_text

    print(new_text(token_bytes, name=args.name, user_id=args.user_id), end="")
    return 0


def _keys_list(args: argparse.Namespace) -> int:
    from proxy.clock import wall
    from proxy.runtime.keys import key_tables
    from proxy.stores.audit_log import AuditLog
    from proxy.stores.keys_command import database_table, list_text

    config = _read(args.config, None)
    tables = key_tables(config)
    database = Path(config.admin.db_path)
    if database.exists():
        tables.append(database_table(database, AuditLog()))
    print(list_text(tables, wall()), end="")
    return 0


def _keys_call(args: argparse.Namespace) -> int:
    from getpass import getuser
    from secrets import token_bytes

    from proxy.clock import wall
    from proxy.stores.audit_log import AuditLog
    from proxy.stores.key_editor import KeyExists, NoSuchKey
    from proxy.stores.key_fields import BadFields
    from proxy.stores.keys_command import call_text, request_of

    admin = _read(args.config, None).admin
    try:
        text = call_text(
            Path(admin.db_path),
            args.action,
            request_of(args.fields),
            who=f"cli:{getuser()}",
            at=wall(),
            random=token_bytes,
            audited=AuditLog(Path(admin.audit_log) if admin.audit_log else None),
        )
    except (BadFields, NoSuchKey, KeyExists, sqlite3.Error) as error:
        known = {NoSuchKey: "there is no such key", KeyExists: "this key exists already"}
        print(f"llmproxy: {known.get(type(error), error)}", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


def _keys_hash(args: argparse.Namespace) -> int:
    from proxy.stores.keys_command import hash_text

    try:
        print(hash_text(sys.stdin), end="")
    except ValueError as error:
        print(f"llmproxy: {error}", file=sys.stderr)
        return 1
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


def _demo_engine(args: argparse.Namespace) -> int:
    from proxy.demo.serve import serve_alone

    serve_alone(args.host, args.port)
    return 0


def _bench(args: argparse.Namespace) -> int:
    import asyncio

    from proxy.bench.client import BenchError
    from proxy.bench.run import bench
    from proxy.process import loop_factory

    def say(what: str) -> None:
        print(f"# {what}", file=sys.stderr)

    work = bench(
        upstream=args.upstream,
        key=os.environ.get("LLMPROXY_UPSTREAM_KEY", ""),
        model=args.model,
        seconds=args.seconds,
        say=say,
    )
    try:
        with asyncio.Runner(loop_factory=loop_factory(os.environ)) as runner:
            print(runner.run(work), end="")
    except BenchError as error:
        print(f"llmproxy: {error}", file=sys.stderr)
        return 1
    return 0


# -- reading configurations ------------------------------------------------------


def _read(path: Path, listen: str | None) -> Config:
    text = path.read_text(encoding="utf-8")
    return _listening(parse(text, os.environ, read_file=file_reader(path.parent), origin=str(path)), listen)


def _sidecar(url: str, listen: str | None) -> Config:
    return _listening(sidecar(url, os.environ), listen)


def _listening(config: Config, listen: str | None) -> Config:
    if listen is None:
        return config
    if problem := bad_listen(listen):
        raise ConfigError("command line", [Problem(1, "--listen", "", problem)])
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, listen=listen))


def file_reader(folder: Path) -> Callable[[str], str]:
    """Reads files named in a configuration, relative to its own folder."""
    return lambda name: (folder / name).read_text(encoding="utf-8")
