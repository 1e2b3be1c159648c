"""Drives a headless Chromium through its DevTools protocol, over the WebSocket client that aiohttp brings."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0"
)


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """A page in the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        """What went wrong in the page: script errors, violations of the content security policy, failed loads."""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._session: dict[str, str] = {}

    async def listen(self) -> None:
        async for message in self._socket:
            document = json.loads(message.data)
            if (answer := self._answers.pop(document.get("id", 0), None)) is not None:
                answer.set_result(document)
            elif document.get("method") == "Page.loadEventFired":
                self._loaded.set()
            elif document.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded") and (
                document["params"].get("entry", {}).get("level") in (None, "error")
            ):
                self.complaints.append(json.dumps(document["params"]))

    async def attach(self) -> None:
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **self._session})
        document = await answer
        assert "error" not in document, document
        result: dict[str, Any] = document["result"]
        return result

    async def show(self, width: int, *, dark: bool = False) -> None:
        """Look at the page on a screen of this width, in CSS pixels."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str, **headers: str) -> None:
        self._loaded.clear()
        await self.send("Network.setExtraHTTPHeaders", headers=headers)
        await self.send("Page.navigate", url=url)
        await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page; a promise is awaited."""
        result = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript condition holds, looking again whenever the document changes."""
        await self.run(
            f"new Promise(done => {{ const look = () => ({condition}) && (watch.disconnect(), done());"
            "const watch = new MutationObserver(look);"
            "watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});"
            "look(); })"
        )

    async def picture(self) -> bytes:
        """The whole page as a PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.asynccontextmanager
async def browse(chromium: str) -> AsyncIterator[Tab]:
    """Run the browser while the `with` block runs."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            chromium,
            *OPTIONS.split(),
            f"--user-data-dir={Path(profile)}",
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert process.stderr is not None
        try:
            async for line in process.stderr:
                if b"DevTools listening on " in line:
                    break
            url = line.decode().split()[-1]
            drain = asyncio.create_task(process.stderr.read())
            async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                await tab.attach()
                yield tab
            await listening
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            await drain
