"""The page at `/`: as HTML that a program reads, and in a real browser."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from devhost.orchestration import EventType
from devhost.store import Instance, Store
from tests.devhost.chromium import Tab, browse, find_chromium
from tests.devhost.conftest import StartHost

WEBHOOKS = "/runtime/webhooks/durabletask"
MARKUP = "<img src=x onerror='window.hacked = 1'>"
NOON = "2026-01-01T12:00:00.000000Z"


def finished(host: httpx.Client, name: str, value: object = None) -> str:
    """Start an orchestration and wait for its end; returns its id, which has markup in it."""
    instance_id = f"<b>{uuid.uuid4().hex}"
    url = f"{WEBHOOKS}/orchestrators/{name}/{instance_id.replace('<', '%3C').replace('>', '%3E')}"
    host.post(f"{url}?timeout=30&pollingInterval=1", json=json.dumps(value))
    return instance_id


def page(host: httpx.Client, **query: str) -> str:
    response = host.get("/", params=query)
    assert response.status_code == 200
    return response.text


# As HTML


def test_every_function_is_shown_with_its_way_to_be_called(kitchen: httpx.Client) -> None:
    text = page(kitchen)

    assert 'value="/api/echo/{word:alpha}/{number:int?}"' in text
    assert f'value="{WEBHOOKS}/orchestrators/greet"' in text
    assert 'value="/admin/functions/nightly"' in text


def test_a_timer_is_shown_with_its_schedule_and_its_next_run(kitchen: httpx.Client) -> None:
    shown = r'<code id="about-nightly" data-live>timer 0 0 3 \* \* \*, next at \d{4}-\d\d-\d\d 03:00:00 UTC</code>'

    assert re.search(shown, page(kitchen))


def test_what_the_app_tells_of_itself_is_shown_and_escaped(kitchen: httpx.Client) -> None:
    text = page(kitchen)

    assert "<dt>Cups &lt;of tea&gt;</dt><dd>1,234</dd>" in text
    assert "<dt>Kettle is hot</dt><dd>yes</dd>" in text
    assert "<dt>Sugar</dt><dd>none</dd>" in text


def test_orchestrations_are_listed_the_newest_first_in_pages_and_by_state(start_host: StartHost) -> None:
    host = start_host("kitchen").client
    for number in range(30):
        host.post(f"{WEBHOOKS}/orchestrators/waiting/number-{number:02}")
    finished(host, "greet", "you")

    first, second = page(host, state="Running"), page(host, state="Running", page="2")

    assert first.index("number-29") < first.index("number-28") < first.index("number-05")
    assert "number-04" not in first
    assert second.index("number-04") < second.index("number-00")
    assert 'href="/?state=Running&amp;page=2">Older' in first
    assert 'href="/?state=Running">Newer' in second
    assert "Completed 1</a>" in first
    assert page(host, page="none") == page(host, page="0")


def test_an_orchestration_is_shown_with_what_it_was_given_did_and_gave(kitchen: httpx.Client) -> None:
    text = unescape(page(kitchen, instance=finished(kitchen, "greet", {"who": "you"})))

    assert '<span class="state Completed">Completed</span>' in text
    assert "<h3>Custom status</h3><pre>greeting</pre>" in text
    assert '<h3>Input</h3><pre>{\n  "who": "you"\n}</pre>' in text
    assert "<h3>Output</h3><pre>hello {'who': 'you'}</pre>" in text
    assert text.count("<rect ") == 1


def test_a_failed_task_is_shown_with_its_reason_and_a_sub_orchestration_as_a_link(kitchen: httpx.Client) -> None:
    assert "RuntimeError: it went off" in page(kitchen, instance=finished(kitchen, "failing"))
    assert '<a href="/?instance=' in page(kitchen, instance=finished(kitchen, "tracing"))


def hostile(place: str) -> str:
    """A text that would become an element, whether it is put between tags or into an attribute."""
    return f"'\"><img alt={place}>"


def remember(state: Path, instance: Instance, events: list[dict[str, object]]) -> None:
    """Leave an orchestration in the state file of a host that is yet to start."""
    store = Store(state)
    with store.transaction():
        store.save(instance)
        store.append(instance.instance_id, 0, [json.dumps({"Timestamp": NOON, **event}) for event in events])
    store.close()


def test_every_text_of_an_orchestration_is_escaped(start_host: StartHost, tmp_path: Path) -> None:
    instance = Instance(
        instance_id=hostile("id"),
        execution_id="execution",
        name=hostile("name"),
        version=hostile("version"),
        status="Failed",
        input=json.dumps(hostile("input")),
        output=json.dumps(hostile("output")),
        custom_status=json.dumps(hostile("status")),
        created=NOON,
        updated=NOON,
        parent=json.dumps({"instance_id": hostile("parent"), "execution_id": "another", "task_id": 0}),
        waits=json.dumps([hostile("wait")]),
    )
    events: list[dict[str, object]] = [
        {"EventType": EventType.TASK_SCHEDULED, "EventId": 0, "Name": hostile("activity")},
        {"EventType": EventType.TASK_FAILED, "TaskScheduledId": 0, "Reason": hostile("reason")},
        {"EventType": EventType.SUB_ORCHESTRATION_CREATED, "EventId": 1, "Name": hostile("sub"), "InstanceId": "<img>"},
        {"EventType": EventType.EVENT_RAISED, "Name": hostile("event")},
    ]
    remember(tmp_path / "state.db", instance, events)
    host = start_host("kitchen").client

    overview = page(host) + page(host, state=hostile("state"), page="2")
    orchestration = page(host, instance=instance.instance_id)

    assert "<img" not in overview + orchestration
    for place in ("id", "name", "state"):
        assert hostile(place) in unescape(overview)
    for place in ("id", "name", "version", "input", "output", "status", "parent", "wait"):
        assert hostile(place) in unescape(orchestration)
    for place in ("activity", "reason", "sub", "event"):
        assert f"{hostile(place)}</" in unescape(orchestration)  # in the timeline; the history has them as JSON


def test_of_a_long_timeline_and_of_a_long_text_a_part_is_shown(start_host: StartHost, tmp_path: Path) -> None:
    long_text = json.dumps("x" * 21_234)
    instance = Instance("long", "execution", "greet", None, "Completed", "null", long_text, None, NOON, NOON)
    events: list[dict[str, object]] = [{"EventType": EventType.EVENT_RAISED, "Name": "Go"}] * 1_500
    remember(tmp_path / "state.db", instance, events)

    text = page(start_host("kitchen").client, instance="long")

    assert "x" * 20_000 + "\n… and 1,234 characters more</pre>" in text
    assert text.count("<rect ") == 400
    assert "1,100 more are not drawn." in text


def test_the_names_of_an_app_and_its_functions_are_escaped(start_host: StartHost, tmp_path: Path) -> None:
    folder = tmp_path / "tea & cake"
    folder.mkdir()
    (folder / "host.json").write_text('{"version": "2.0"}')
    (folder / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        f"app.function_name({hostile('http')!r})(app.route('<img>')(lambda req: ''))\n"
        f"app.function_name({hostile('queue')!r})(app.queue_trigger('message', 'q', 'c')(lambda message: None))\n"
    )

    text = page(start_host(folder).client)

    assert "<img" not in text
    assert all(name in unescape(text) for name in (hostile("http"), hostile("queue"), "/api/<img>"))
    assert "<title>tea &amp; cake</title>" in text


def test_an_unknown_orchestration_is_not_found(kitchen: httpx.Client) -> None:
    response = kitchen.get("/?instance=<nobody>")

    assert response.status_code == 404
    assert "&lt;nobody&gt;" in response.text


def test_a_host_name_that_is_not_this_machines_is_refused(kitchen: httpx.Client) -> None:
    port = kitchen.base_url.port

    assert kitchen.get("/", headers={"Host": f"rebound.example:{port}"}).status_code == 403
    assert kitchen.get("/", headers={"Host": f"localhost:{port}"}).status_code == 200


def test_the_page_may_not_be_framed_cached_or_load_anything(kitchen: httpx.Client) -> None:
    headers = kitchen.get("/").headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def test_with_auth_the_page_is_for_the_master_key(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host("kitchen", "--enable-auth").client
    keys = json.loads((tmp_path / "keys.json").read_text())

    assert host.get("/").headers["www-authenticate"].startswith("Basic ")
    assert host.get("/", auth=("", keys["host"])).status_code == 401
    shown = host.get("/", auth=("", keys["master"]))
    assert shown.status_code == 200
    assert not any(key in shown.text for key in (keys["master"], keys["host"], keys["system"]))
    # A browser sends such a password by itself, so that it must not open what changes anything.
    assert host.post("/admin/functions/nightly", json={}, auth=("", keys["master"])).status_code == 401


# In a browser


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium, or any other that puts `chromium` on the path")
    async with browse(chromium) as tab:
        yield tab
    assert tab.complaints == []


async def test_an_http_function_is_called_from_its_form(tab: Tab, kitchen: httpx.Client) -> None:
    await tab.open(f"{kitchen.base_url}/")

    await tab.run(
        "form = document.querySelector('#function-echo form'); form.elements.method.value = 'POST';"
        "form.elements.path.value = '/api/echo/abc/7?a=1'; form.elements.body.value = '12345'; form.requestSubmit()"
    )
    await tab.until("form.querySelector('output pre')")

    answer = await tab.run("form.querySelector('output').textContent")
    assert answer.startswith("200")
    assert json.loads(answer[answer.index("{") :])["route"] == {"word": "abc", "number": "7"}


async def test_an_orchestration_is_started_from_its_form_and_followed_to_its_timeline(
    tab: Tab, kitchen: httpx.Client
) -> None:
    await tab.open(f"{kitchen.base_url}/")

    await tab.run(
        "form = document.querySelector('#function-greet form');"
        "form.elements.body.value = '\"you\"'; form.requestSubmit()"
    )
    await tab.until("form.querySelector('output a')")
    await tab.open(await tab.run("form.querySelector('output a').href"))
    await tab.until("document.querySelector('.state.Completed')")

    assert await tab.run("document.querySelector('h2').textContent") == "greet"
    assert await tab.run("document.querySelectorAll('#timeline rect').length") == 1


async def test_another_function_is_run_through_its_admin_route(tab: Tab, kitchen: httpx.Client) -> None:
    await tab.open(f"{kitchen.base_url}/")

    await tab.run("form = document.querySelector('#function-nightly form'); form.requestSubmit()")
    await tab.until("form.querySelector('output strong')")

    assert (await tab.run("form.querySelector('output').textContent")).startswith("202")


async def test_the_list_follows_what_happens_without_a_reload(tab: Tab, kitchen: httpx.Client) -> None:
    await tab.open(f"{kitchen.base_url}/")
    instance_id = uuid.uuid4().hex
    await asyncio.to_thread(kitchen.post, f"{WEBHOOKS}/orchestrators/waiting/{instance_id}")

    await tab.run("refresh()")

    assert instance_id in await tab.run("document.querySelector('#orchestrations').textContent")


async def test_markup_in_inputs_ids_and_outputs_is_text(tab: Tab, kitchen: httpx.Client) -> None:
    instance_id = finished(kitchen, "greet", MARKUP)
    await tab.open(f"{kitchen.base_url}/")
    assert instance_id in await tab.run("document.querySelector('#orchestrations').textContent")

    await tab.run("link = [...document.querySelectorAll('.instances a')][0]")
    await tab.open(await tab.run("link.href"))

    assert f"hello {MARKUP}" in await tab.run("document.querySelector('#orchestration').textContent")
    assert await tab.run("document.querySelectorAll('main img, main b').length") == 1  # the heading of the history
    assert await tab.run("window.hacked") is None


async def test_with_auth_a_function_is_called_with_the_key_that_was_typed(
    tab: Tab, start_host: StartHost, tmp_path: Path
) -> None:
    host = start_host("kitchen", "--enable-auth")
    keys = json.loads((tmp_path / "keys.json").read_text())
    await tab.open(f"{host.url}/?code={keys['master']}")

    await tab.run(
        f"key.value = {keys['functions']['A_literal']!r};"
        "form = document.querySelector('#function-A_literal form'); form.requestSubmit()"
    )
    await tab.until("form.querySelector('output pre')")

    assert "the literal route" in await tab.run("form.querySelector('output').textContent")


CONTRAST = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => channels(colour).slice(0, 3)
    .map((value) => value / 255).map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return channels(colour)[3] === 0 ? ground(element.parentElement) : colour;
  };
  const contrast = (element) => {
    const [low, high] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return Math.min(...[...document.querySelectorAll("main *")].filter((e) => e.innerText?.trim()).map(contrast));
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_it_fits_the_screen_and_is_legible(tab: Tab, kitchen: httpx.Client, width: int, dark: bool) -> None:
    instance_id = finished(kitchen, "failing", "x" * 300)
    await tab.show(width, dark=dark)
    for query in ("", f"?instance={instance_id}"):
        await tab.open(f"{kitchen.base_url}/{query}")
        await tab.run("for (const folded of document.querySelectorAll('details')) folded.open = true")

        assert await tab.run("document.documentElement.scrollWidth") <= width
        assert await tab.run(CONTRAST) >= 4.5
        ground = await tab.run("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(21, 23, 27)") is dark
