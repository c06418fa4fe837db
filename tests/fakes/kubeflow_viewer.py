"""Shows a page as KFP's UI shows an HTML artifact, in a headless Chromium, and says what was seen.

The same frame (`HTMLViewer.tsx`): `srcdoc`, and `sandbox="allow-scripts"` alone, so no origin, no
cookies, no storage, no new windows. Chromium is spoken to through a pipe; names resolve nowhere.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import IO, Any

_PATIENCE_S = 600.0
"""Of a whole session: a browser that hangs ends, and with it the reading of its answers."""
_HEIGHT = 600
"""Pixels: the least that KFP gives to the frame."""

_LOOK = """
(() => {
  const page = document.scrollingElement, boxes = [];
  for (const svg of document.querySelectorAll('svg')) {
    const box = svg.getBoundingClientRect();
    boxes.push([box.left, box.right, box.width, box.height]);
  }
  const first = {};
  for (const name of ['h1', '.headline']) {
    const found = document.querySelector(name);
    if (found) first[name] = found.getBoundingClientRect().bottom;
  }
  return {text: document.body.innerText, boxes, first, wide: page.scrollWidth,
          room: page.clientWidth, title: document.title};
})()
"""


@dataclass
class Seen:
    """What a person sees of a page, and what the page tried."""

    text: str
    title: str
    svgs: list[tuple[float, float, float, float]]
    """Left, right, width and height of each picture, in pixels."""

    bottoms: dict[str, float]
    """Where `h1` and `.headline` end, in pixels from the top of the frame."""

    wide: int
    """Pixels that the content needs."""

    room: int
    """Pixels that there are."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Viewer:
    """A Chromium with one tab."""

    def __init__(self, orders: IO[bytes], answers: IO[bytes]) -> None:
        self._orders, self._answers = orders, answers
        self._number, self._session = 0, ""
        self._events: list[dict[str, Any]] = []

    def show(self, html: str, width: int = 800, picture: Path | None = None) -> Seen:
        """Show a page in KFP's frame.

        Args:
            html: The artifact's content.
            width: Of the window, in pixels.
            picture: Where a picture of the whole page goes; None: nowhere.
        """
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session, self._events = attached["sessionId"], []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")
        self._sized(width, _HEIGHT)
        top = self._ask("Page.getFrameTree")["frameTree"]["frame"]["id"]
        frame = (
            '<body style="margin:0"><iframe sandbox="allow-scripts" style="border:0;width:100%;'
            f'height:100vh;display:block" srcdoc="{escape(html)}"></iframe>'
        )
        self._ask("Page.setDocumentContent", frameId=top, html=frame)
        world = self._world()
        found = self._evaluate(world, _LOOK)
        if picture is not None:
            self._sized(width, self._evaluate(world, "document.documentElement.offsetHeight") + 40)
            shot = self._ask("Page.captureScreenshot", format="png")
            picture.write_bytes(base64.b64decode(shot["data"]))
        self._session, session = "", self._session
        self._ask("Target.closeTarget", targetId=target)
        mine = [event for event in self._events if event.get("sessionId") == session]
        return Seen(
            text=found["text"],
            title=found["title"],
            svgs=[tuple(box) for box in found["boxes"]],
            bottoms=found["first"],
            wide=found["wide"],
            room=found["room"],
            requests=list(_requests(mine)),
            errors=list(_errors(mine)),
        )

    def _sized(self, width: int, height: int) -> None:
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def _world(self) -> int:
        """Return a place for our own script in the frame, once the page is there."""
        pause = threading.Event()
        for _ in range(600):
            tree = self._ask("Page.getFrameTree")["frameTree"]
            for child in tree.get("childFrames", ()):
                made = self._ask("Page.createIsolatedWorld", frameId=child["frame"]["id"])
                world = int(made["executionContextId"])
                ready = "location.href == 'about:srcdoc' && document.readyState == 'complete'"
                if self._evaluate(world, ready):
                    return world
            pause.wait(0.05)
        raise AssertionError("the frame did not load")

    def _evaluate(self, world: int, script: str) -> Any:
        found = self._ask(
            "Runtime.evaluate", expression=script, contextId=world, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        order = {"id": self._number, "method": method, "params": params}
        order |= {"sessionId": self._session} if self._session else {}
        self._orders.write(json.dumps(order).encode() + b"\0")
        self._orders.flush()
        while True:
            heard = self._heard()
            if heard.get("id") == self._number:
                assert "error" not in heard, (method, heard["error"])
                answer: dict[str, Any] = heard["result"]
                return answer
            self._events.append(heard)

    def _heard(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium ended"
            text += byte
        heard: dict[str, Any] = json.loads(text)
        return heard


def _requests(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        if event["method"] == "Network.requestWillBeSent":
            url = str(event["params"]["request"]["url"])
            if not url.startswith(("about:", "data:")):
                yield url


def _errors(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        params: Mapping[str, Any] = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            yield str(details.get("exception", {}).get("description", details["text"]))
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            yield str(params["entry"]["text"])


@contextmanager
def viewer(profile: Path) -> Iterator[Viewer]:
    """Start Chromium, and end it.

    Args:
        profile: An empty folder for what it keeps.
    """
    program = shutil.which("chromium")
    assert program is not None, "chromium is not on PATH"
    command = [
        program,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", "--disable-extensions", "--hide-scrollbars"),
        "--disable-features=IsolateSandboxedIframes",  # one process, one conversation
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--remote-debugging-pipe",
    ]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" 3<&0 4>&1', "sh", *command],  # it listens on 3, and answers on 4
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    over = threading.Timer(_PATIENCE_S, process.kill)
    over.start()
    try:
        yield Viewer(process.stdin, process.stdout)
    finally:
        over.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
