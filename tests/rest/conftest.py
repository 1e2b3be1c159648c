"""A server that tells what it was sent, and one that breaks the rules of HTTP as it is told to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from dev.sandbox.serving import serve

type Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
type StartServer = Callable[[Handler], Awaitable[str]]


async def tell(request: web.Request) -> web.Response:
    headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
    body = (await request.read()).decode("latin-1")
    document = {"method": request.method, "target": request.raw_path, "headers": headers, "body": body}
    return web.json_response(document, headers={"X-Request-Id": "request-1"})


@pytest.fixture(scope="session")
def echo() -> Iterator[str]:
    """URL of a server that answers each request with its description as JSON."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", tell)
    with serve(app) as url:
        yield url


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Starts TCP servers on the test's event loop, one handler call a connection; tells their URLs."""
    async with AsyncExitStack() as stack:
        connections: set[asyncio.StreamWriter] = set()

        async def start(handler: Handler) -> str:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                connections.add(writer)
                try:
                    await handler(reader, writer)
                except (ConnectionError, asyncio.IncompleteReadError):
                    pass  # the client went away
                finally:
                    writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start
        for writer in connections:
            writer.transport.abort()


@pytest.fixture
def answer_with(start_server: StartServer) -> Callable[[bytes], Awaitable[str]]:
    """Starts a server that sends these bytes for each request and closes the connection."""

    async def start(response: bytes) -> str:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()

        return await start_server(handler)

    return start


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a certificate for localhost, which is its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(folder / "certificate.pem"), str(folder / "key.pem")
