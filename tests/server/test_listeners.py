"""Addresses, ports that are taken, and sockets that a predecessor left."""

import errno
import os
import socket
import stat

import pytest

from proxy.config import parse
from proxy.listeners import bind, inherited_sockets, open_sockets, sibling, url_of


def closing(sockets):
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(
    ("address", "families"),
    [
        ("127.0.0.1:0", {socket.AF_INET}),
        ("[::1]:0", {socket.AF_INET6}),
        (":0", {socket.AF_INET, socket.AF_INET6}),
        ("localhost:0", None),
    ],
)
def test_an_address_is_listened_on(address, families):
    sockets = bind(address)

    ports = {sock.getsockname()[1] for sock in sockets}
    assert len(ports) == 1  # the same on every address
    assert families is None or {sock.family for sock in sockets} == families
    for sock in sockets:
        with socket.socket(sock.family) as client:
            client.connect(("::1" if sock.family == socket.AF_INET6 else "127.0.0.1", sock.getsockname()[1]))
    closing(sockets)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("other_shares", [False, True])
def test_a_port_in_use_is_an_error_that_names_it(shares, other_shares):
    taken = bind("127.0.0.1:0", reuse_port=other_shares)
    address = f"127.0.0.1:{taken[0].getsockname()[1]}"

    with pytest.raises(OSError, match=rf"cannot listen on {address}: Address already in use"):
        bind(address, reuse_port=shares)
    closing(taken)


def test_a_name_that_does_not_exist_is_an_error_that_names_it():
    with pytest.raises(OSError, match=r"cannot listen on nowhere\.invalid:1: "):
        bind("nowhere.invalid:1")


def test_all_addresses_free_each_other_when_one_is_taken():
    taken = bind("[::1]:0")
    port = taken[0].getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        bind(f":{port}")

    closing(bind(f"127.0.0.1:{port}"))
    closing(taken)


def test_a_sibling_shares_the_port():
    first = bind("127.0.0.1:0", reuse_port=True)
    second = sibling(first[0])

    assert second.getsockname() == first[0].getsockname()
    assert second.fileno() != first[0].fileno()
    closing([*first, second])


def test_a_socket_that_cannot_share_its_port_is_shared_itself(tmp_path):
    for first in (*bind("127.0.0.1:0"), *bind(f"unix:{tmp_path}/s")):
        second = sibling(first)

        assert second.getsockname() == first.getsockname()
        closing([first, second])


def test_what_a_client_would_call_it():
    (four,), (six,) = bind("127.0.0.1:0"), bind("[::1]:0")

    assert url_of(four, tls=False) == f"http://127.0.0.1:{four.getsockname()[1]}"
    assert url_of(six, tls=True) == f"https://[::1]:{six.getsockname()[1]}"
    closing([four, six])


# --- Unix sockets ------------------------------------------------------------


def test_whoever_may_enter_the_folder_may_connect(tmp_path):
    path = tmp_path / "s"

    closing(bind(f"unix:{path}"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_socket_that_an_ended_process_left_is_replaced(tmp_path):
    closing(bind(f"unix:{tmp_path}/s"))

    closing(bind(f"unix:{tmp_path}/s"))


def test_a_socket_that_is_served_stays(tmp_path):
    served = bind(f"unix:{tmp_path}/s")

    with pytest.raises(OSError, match="in use"):
        bind(f"unix:{tmp_path}/s")

    with socket.socket(socket.AF_UNIX) as client:
        assert client.connect_ex(f"{tmp_path}/s") == 0
    closing(served)


def test_a_file_that_is_no_socket_stays(tmp_path):
    (tmp_path / "s").write_text("precious")

    with pytest.raises(OSError, match="no socket"):
        bind(f"unix:{tmp_path}/s")

    assert (tmp_path / "s").read_text() == "precious"


def test_a_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        bind(f"unix:{tmp_path}/missing/s")


# --- all of a configuration's --------------------------------------------------


def config(text):
    return parse("backends: [{url: 'http://127.0.0.1:1'}]\n" + text, {}, read_file=open)


def test_listeners_of_their_own_are_bound_too(tmp_path):
    sockets = open_sockets(
        config(
            f"server: {{listen: '127.0.0.1:0'}}\nmetrics: {{listen: 'unix:{tmp_path}/m'}}\n"
            "admin: {listen: '127.0.0.1:0', token: abcdefghijklmnopq}"
        )
    )

    assert [len(sockets.main), len(sockets.metrics), len(sockets.admin)] == [1, 1, 1]
    sockets.close()
    sockets.remove_paths()
    assert not (tmp_path / "m").exists()


def test_one_that_is_taken_frees_the_others(tmp_path):
    (taken,) = bind("127.0.0.1:0")
    port = taken.getsockname()[1]

    with pytest.raises(OSError, match="in use"):
        open_sockets(
            config(f"server: {{listen: 'unix:{tmp_path}/s'}}\nmetrics: {{listen: '127.0.0.1:{port}'}}")
        )

    assert not (tmp_path / "s").exists()
    taken.close()


# --- systemd's ---------------------------------------------------------------


# Where the tests put them: far above what they have open.
FIRST = 700


@pytest.fixture
def handed_over():
    """Sockets as systemd hands them over."""
    sockets = bind("127.0.0.1:0") + bind("127.0.0.1:0") + bind("127.0.0.1:0")
    for number, sock in enumerate(sockets):
        os.dup2(sock.fileno(), FIRST + number)
    yield sockets
    closing(sockets)
    os.closerange(FIRST, FIRST + len(sockets))


def environ(pid, count, names=None):
    found = {"LISTEN_PID": str(pid), "LISTEN_FDS": str(count), "PATH": "/"}
    return found if names is None else {**found, "LISTEN_FDNAMES": names}


def names_of(found):
    return {name: [sock.getsockname() for sock in sockets] for name, sockets in found.items()}


def test_inherited_sockets_go_where_their_names_say(handed_over):
    main, metrics, admin = (sock.getsockname() for sock in handed_over)
    variables = environ(os.getpid(), 3, "llmproxy.socket:metrics:admin")

    found = inherited_sockets(variables, FIRST)

    assert names_of(found) == {"": [main], "metrics": [metrics], "admin": [admin]}
    assert not any(os.get_inheritable(sock.fileno()) for sockets in found.values() for sock in sockets)
    assert variables == {"PATH": "/"}  # or a child process would take them for its own
    closing(sock for sockets in found.values() for sock in sockets)


def test_sockets_without_names_are_for_clients(handed_over):
    found = inherited_sockets(environ(os.getpid(), 2), FIRST)

    assert names_of(found) == {"": [sock.getsockname() for sock in handed_over[:2]]}
    closing(found[""])


def test_sockets_of_another_process_are_left_alone():
    assert inherited_sockets(environ(os.getpid() + 1, 1), FIRST) == {}
