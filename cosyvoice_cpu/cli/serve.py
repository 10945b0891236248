"""`cosyvoice-cpu serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosyvoice_cpu.cli.config_file import ConfigOption
from cosyvoice_cpu.cli.options import EngineOption, SpeakersOption, ThreadsOption, TrustOption


def serve(
    host: Annotated[
        str,
        typer.Option(metavar="HOST", help="Where to listen; beyond loopback only with an API key."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="0 takes a free one.")] = 8000,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            envvar="COSYVOICE_CPU_BUNDLE",
            help="The model; by default the embedded demo.",
        ),
    ] = None,
    speakers: SpeakersOption = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Texts that are spoken at the same time; above 1, each by a process of its own.",
        ),
    ] = 1,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    cpus: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Processors to run on, as 0-3,8; or `performance` for the fast kind of cores.",
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(metavar="N", help="Requests that may wait; one more gets status 429.")
    ] = 8,
    max_wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long a text may wait until it is begun, as predicted; beyond, 503.",
        ),
    ] = 10.0,
    request_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="The longest that a request may take.")
    ] = 600.0,
    stall_seconds: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long a client may neither read nor send."),
    ] = 30.0,
    max_connections: Annotated[
        int, typer.Option(metavar="N", help="Connections at a time, idle ones included.")
    ] = 256,
    max_characters: Annotated[
        int, typer.Option(metavar="N", help="The longest text of a request.")
    ] = 4096,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="What clients must know. Rather set the variable: others see a command's options.",
        ),
    ] = None,
    wyoming: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Speak Home Assistant's Wyoming protocol on it too; 10200 is usual.",
        ),
    ] = None,
    wyoming_host: Annotated[
        str,
        typer.Option(metavar="HOST", help="Where; Wyoming knows no key, so anyone there may ask."),
    ] = "127.0.0.1",
    max_voices: Annotated[
        int, typer.Option(metavar="N", help="How many voices clients may add, with --speakers.")
    ] = 100,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Put the texts into the log as well.")
    ] = False,
    trust: TrustOption = False,
    config: ConfigOption = None,
) -> None:
    """Serve speech over HTTP as OpenAI's API has it. Example: cosyvoice-cpu serve --port 8000"""
    from contextlib import ExitStack
    from functools import partial

    from cosyvoice_cpu.cli.bundles import chosen_bundle, speaker_folders
    from cosyvoice_cpu.cli.engines import load_stages
    from cosyvoice_cpu.cli.messages import note
    from cosyvoice_cpu.errors import library_error
    from cosyvoice_cpu.synthesis.synthesizer import Synthesizer, speaker_from_clip
    from cosyvoice_cpu.system.affinity import shown_cpus, use_cpus
    from cosyvoice_cpu.system.heaps import share_one_heap
    from cosyvoice_cpu.system.threads import resolve_threads

    try:
        from cosyvoice_cpu.serving.app import STOP_SECONDS, make_app
        from cosyvoice_cpu.serving.records import RecordLog
        from cosyvoice_cpu.serving.server import Server, address, bind
        from cosyvoice_cpu.serving.settings import Settings
        from cosyvoice_cpu.serving.speech import SpeechService
        from cosyvoice_cpu.serving.voices import Uploads, Voices
        from cosyvoice_cpu.serving.worker_messages import Setup
        from cosyvoice_cpu.serving.worker_pool import WorkerPool
    except ImportError as error:
        raise library_error(error, "serve needs a web server", "serve") from error

    settings = Settings(
        host=host,
        port=port,
        api_key=api_key or None,
        workers=workers,
        queue=queue,
        max_wait=max_wait,
        request_seconds=request_seconds,
        stall_seconds=stall_seconds,
        max_connections=max_connections,
        max_characters=max_characters,
        speakers=speakers,
        log_text=log_text,
    )
    settings.check()
    if config is not None:
        note(f"options from {config}")
    share_one_heap()
    if cpus is not None:
        note(f"running on processors {shown_cpus(use_cpus(cpus))}")
    each = resolve_threads(threads) if threads else max(1, resolve_threads() // workers)
    stages = load_stages(chosen_bundle(bundle), each, engine, trust=trust)
    folders = speaker_folders(stages.bundle, speakers)
    uploads = None
    if speakers is not None:
        uploads = Uploads(speakers, partial(speaker_from_clip, stages.bundle), max_voices)
    with ExitStack() as opened:
        listener = opened.enter_context(bind(host, port))
        second = None
        if wyoming is not None:
            second = opened.enter_context(bind(wyoming_host, wyoming))
        pool = None
        if workers > 1:
            folder = str(speakers) if speakers else None
            engines = stages.chosen_engines
            setup = Setup(str(stages.bundle_path), each, folder, trust, engines)
            pool = opened.enter_context(WorkerPool(setup, workers))
        service = SpeechService(
            Synthesizer.of_bundle(stages, speakers=speakers),
            Voices(folders, uploads),
            settings,
            presets=tuple(stages.synthesis.solver_presets),
            pool=pool,
        )
        app = make_app(
            service,
            model="demo" if bundle is None else stages.bundle_path.resolve().name,
            created=int(stages.bundle_path.stat().st_mtime),
            log_lines=RecordLog(),
            wyoming=second,
        )
        server = Server(
            app, service, on_listening=lambda: note(f"listening on {address(listener)}")
        )
        for name, value in settings.shown().items():
            note(f"  {name.replace('_', '-')}: {value}")
        if second is not None:
            note(f"  wyoming: {address(second).replace('http', 'tcp')}")
        try:
            server.run(sockets=[listener])
        finally:
            service.room.stop(STOP_SECONDS)
