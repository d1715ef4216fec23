"""The administration pages where they are mounted, and keys made there at once usable."""

import json

from kit.client import ask
from kit.gateway import free_port, settings
from kit.upstream import ScriptedUpstream
from kit.wire import post

TOKEN = b"X-Admin-Token: adm-0123456789abcdef"


def configured(port, folder, **admin):
    return settings(
        port,
        auth={"enabled": True, "pipeline": [{"type": "builtin"}]},
        admin={"token": "adm-0123456789abcdef", "db_path": str(folder / "keys.db"), **admin},
    )


async def called(port, action, *lines, **fields):
    response = await ask(port, post(b"/admin/keys/" + action, json.dumps(fields).encode(), *lines))
    return response.status, json.loads(response.body)


async def test_a_key_made_by_an_administrator_works_at_once_and_stops_at_once(new_gateway, tmp_path):
    async with ScriptedUpstream() as upstream:
        gateway = new_gateway(configured(upstream.port, tmp_path))

        _, made = await called(gateway.port, b"create", TOKEN, name="alice")
        bearer = b"Authorization: Bearer " + made["data"]["key"].encode()
        before = await ask(gateway.port, post(b"/v1/x", b"{}", bearer))
        await called(gateway.port, b"update", TOKEN, key_id=made["data"]["key_id"], status="disabled")
        after = await ask(gateway.port, post(b"/v1/x", b"{}", bearer))

        assert (before.status, after.status) == (200, 403)
        assert [request.target for request in upstream.requests] == [b"/v1/x"]


async def test_without_its_token_nothing_is_administered(new_gateway, tmp_path):
    gateway = new_gateway(configured(free_port(), tmp_path))

    missing, _ = await called(gateway.port, b"list")
    wrong, _ = await called(gateway.port, b"list", b"X-Admin-Token: guess")

    assert (missing, wrong) == (401, 403)


async def test_administration_may_have_an_address_of_its_own(new_gateway, tmp_path):
    port = free_port()
    gateway = new_gateway(configured(free_port(), tmp_path, listen=f"127.0.0.1:{port}"))

    own, _ = await called(port, b"list", TOKEN)
    main = await ask(gateway.port, post(b"/admin/keys/list", b"{}", TOKEN))

    assert own == 200
    assert main.status == 401  # a path like any other there, and it needs a key
