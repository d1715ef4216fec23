"""A thousand https servers behind the system's authorities have one TLS context, not a thousand."""

import ssl

import pytest
import trustme

from proxy.config.schema_pools import UpstreamTls
from proxy.runtime.pools import Transport, connector
from proxy.upstream.connection import Timeouts
from proxy.upstream.endpoint import Changes, Endpoint, EndpointSpec, Vitals


@pytest.fixture
def context_of():
    """The context that an endpoint with these settings gets; all come from one connector."""
    made = []

    def make(host, port, *, ssl, **others):
        made.append(ssl)

    connect = connector(make)

    def context(settings, scheme="https"):
        transport = Transport(Timeouts(), 3.0, settings)
        spec = EndpointSpec("b", scheme, "127.0.0.1", 443, transport=transport)
        Endpoint(spec, Vitals(Changes()), connect)
        return made[-1]

    return context


def test_endpoints_with_the_systems_authorities_share_a_context(context_of):
    first = context_of(UpstreamTls())

    assert first is context_of(UpstreamTls(server_name="other"))
    assert first.verify_mode is ssl.CERT_REQUIRED


def test_who_does_not_verify_has_another(context_of):
    lax = context_of(UpstreamTls(verify=False))

    assert lax.verify_mode is ssl.CERT_NONE
    assert context_of(UpstreamTls()).verify_mode is ssl.CERT_REQUIRED
    assert context_of(UpstreamTls(verify=False)) is lax


def test_files_are_read_for_each_endpoint(context_of, tmp_path):
    file = tmp_path / "ca.pem"
    settings = UpstreamTls(ca_file=str(file))
    subjects = []
    for _ in range(2):  # renewed in between
        authority = trustme.CA()
        authority.cert_pem.write_to_path(file)
        subjects.append(context_of(settings).get_ca_certs()[-1]["serialNumber"])

    assert subjects[0] != subjects[1]


def test_plain_http_has_none(context_of):
    assert context_of(UpstreamTls(), "http") is None
