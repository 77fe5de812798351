"""A real ssh server for bare repositories on this machine: asyncssh runs git's own upload-pack and receive-pack."""

from __future__ import annotations

import asyncio
import os
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_COMMANDS = {"git-upload-pack", "git-receive-pack"}


@dataclass(frozen=True)
class SshServer:
    """Where it listens, and whom it lets in.

    Attributes:
        port: On 127.0.0.1.
        key: The private key of its only user, as OpenSSH has it.
        known_hosts: The line that knows it.
    """

    port: int
    key: str
    known_hosts: str


def require_asyncssh() -> Any:
    """The module asyncssh; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
        import asyncssh  # the one optional import: its absence is told by the test

        return asyncssh
    return pytest.importorskip("asyncssh")


@contextmanager
def ssh_git_server() -> Iterator[SshServer]:
    """Serve every repository of this machine to one key."""
    asyncssh = require_asyncssh()
    own, user = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.new_event_loop()

    async def serve(process: Any) -> None:
        name, path = shlex.split(process.command or "none none")
        if name not in _COMMANDS:
            process.exit(127)
            return
        child = await asyncio.create_subprocess_exec(
            *name.split("-", 1), path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        await process.redirect(stdin=child.stdin, stdout=child.stdout)
        process.exit(await child.wait())
        await process.wait_closed()

    async def start() -> Any:
        keys = asyncssh.import_authorized_keys(user.export_public_key().decode())
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[own], authorized_client_keys=keys, process_factory=serve, encoding=None
        )

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, name="ssh-server")
    thread.start()
    port = server.get_port()
    known = " ".join(own.export_public_key().decode().split()[:2])
    try:
        yield SshServer(port, user.export_private_key().decode(), f"[127.0.0.1]:{port} {known}")
    finally:

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def address(server: SshServer, repository: Path) -> str:
    """A repository's address on the server."""
    return f"ssh://modelmill@127.0.0.1:{server.port}{repository}"
