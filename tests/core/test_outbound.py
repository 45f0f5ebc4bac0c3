"""Which URLs the service calls: every spelling of a closed address is refused, and a name is looked up once."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.outbound import Guard, NoAnswer, OutboundError, Refused, look_up
from core.settings import Settings

PUBLIC = "93.184.215.14"
PUBLIC_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


class Names:
    """A name server of the test's own: answers in turn, and counts the questions."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was looked up")


CLOSED = [
    # IPv4, and the ways to write 127.0.0.1 that some readers accept
    "https://127.0.0.1/", "https://127.0.0.1:6379/", "https://0.0.0.0/", "https://10.0.0.1/", "https://172.31.255.255/",
    "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/", "https://100.64.0.1/", "https://100.100.100.200/",
    "https://168.63.129.16/", "https://192.0.0.192/", "https://198.18.0.1/", "https://224.0.0.1/", "https://255.255.255.255/",
    "https://2130706433/", "https://0x7f000001/", "https://017700000001/", "https://0x7f.1/", "https://127.1/",
    "https://0177.0.0.1/", "https://127.0.0.01/", "https://1.2.3.4.5/", "https://127.0.0.1./", "https://0/", "https://0x/",
    # IPv6, also with an IPv4 address inside
    "https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fd00::1]/", "https://[fd00:ec2::254]/",
    "https://[ff02::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:169.254.169.254]/", "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::7f00:1]/", "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/", "https://[2001:db8::1]/", "https://[fec0::1]/", "https://[fe80::1%25eth0]/",
    # names that are loopback by definition
    "https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://localhost./",
    # not for us
    "file:///etc/passwd", "gopher://example.com/", "ftp://example.com/", "s3://bucket/key", "redis://example.com/",
    "javascript:alert(1)", "unix:/run/docker.sock", "data:,x", "//example.com/", "/etc/passwd", "example.com", "",
    "https:", "https:example.com", "https:///example.com", "http+unix://x/", "https://", "https:// example.com/", " https://example.com",
    # who is the host?
    "https://good.example@evil.example/", "https://evil.example#@good.example/", "https://evil.example\\@good.example/",
    "https://evil.example\\.good.example/", "https://good.example:80@evil.example/", "https://[::1]@good.example/",
    "https://good.example%2f@evil.example/", "https://evil%2eexample/", "https://a b.example/", "https://a\tb.example/",
    "https://exa\nmple.com/", "https://example.com\r\nX-Evil: 1/", "https://example.com/\r\nX-Evil: 1", "https://exam\x00ple.com/",
    "https://example.com/ä", "https://bücher.example/", "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://ｌocalhost/",
    "https://example.com./", "https://.example.com/", "https://a..b/", "https://-a.example/",
    "https://a" + "a" * 63 + ".example/",
    "https://example.com\u202e/", "https://[::1/", "https://::1/", "https://[::1]a/", "https://[1.2.3.4]/", "https://[v1.x]/",
    # ports
    "https://example.com:0/", "https://example.com:65536/", "https://example.com:22/", "https://example.com:25/",
    "https://example.com:80/", "https://example.com:1023/", "https://example.com:/", "https://example.com:+443/",
    "https://example.com:4 43/", "https://example.com:443:443/", "https://example.com:٤٤٣/", "https://example.com:-1/",
    # plain, and too long
    "http://example.com/", "https://example.com/" + "a" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("url", CLOSED)
def test_a_closed_url_is_refused_before_any_look_up(url: str) -> None:
    guard = Guard(resolve=never)
    with pytest.raises(Refused) as caught:
        guard.locate(url)
    with pytest.raises(Refused):
        guard.check_url(url)
    assert caught.value.code == "url_not_allowed"
    assert caught.value.detail.endswith((".", ")."))
    for secret in ("loopback", "private", "metadata", "127.0.0.1", "169.254", "link-local"):
        assert secret not in caught.value.detail


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("HTTPS://Example.COM/Hook?A=b", "example.com", 443, "/Hook?A=b"),
        ("https://example.com?x=1", "example.com", 443, "/?x=1"),
        ("https://example.com:8443/a/b", "example.com", 8443, "/a/b"),
        ("https://example.com:443/@me", "example.com", 443, "/@me"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
        ("https://my_host.1e3/", "my_host.1e3", 443, "/"),
        (f"https://{PUBLIC}/", PUBLIC, 443, "/"),
        (f"https://[{PUBLIC_V6}]:8443/", PUBLIC_V6, 8443, "/"),
    ],
)
def test_an_ordinary_url_is_read_as_everybody_reads_it(url: str, host: str, port: int, target: str) -> None:
    read = Guard(resolve=never).check_url(url)
    assert (read.host, read.port, read.target) == (host, port, target)


def test_plain_http_needs_the_operator() -> None:
    assert Guard(plain_http=True).check_url("http://example.com/").port == 80
    assert Guard(plain_http=True).check_url("http://example.com:8080/").port == 8080
    with pytest.raises(Refused):
        Guard(plain_http=True).check_url("http://example.com:443/")


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        [PUBLIC] * 10 + ["127.0.0.1"],
        ["::1"],
        [PUBLIC, "::ffff:169.254.169.254"],
        ["fe80::1%eth0"],
        ["0.0.0.0"],
        [],
        ["nonsense"],
    ],
)
def test_a_name_with_any_closed_address_is_as_good_as_none(addresses: list[str]) -> None:
    """The caller cannot tell an internal name from one that does not exist."""

    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    shown = []
    for resolve in (Names(addresses), unknown):
        with pytest.raises(NoAnswer) as caught:
            Guard(resolve=resolve).locate("https://example.com/")
        shown.append((caught.value.code, str(caught.value)))
    assert shown[0] == shown[1]


def test_a_name_is_looked_up_once() -> None:
    names = Names([PUBLIC, PUBLIC_V6], ["127.0.0.1"])
    target = Guard(resolve=names).locate("https://example.com/")
    assert (target.addresses, names.asked) == ((PUBLIC, PUBLIC_V6), 1)


def test_a_mapped_address_is_judged_and_used_as_what_it_stands_for() -> None:
    assert Guard().locate(f"https://[::ffff:{PUBLIC}]/").addresses == (PUBLIC,)
    assert Guard(resolve=Names([f"::ffff:{PUBLIC}"])).locate("https://example.com/").addresses == (PUBLIC,)
    assert Guard(allow=["127.0.0.0/8"]).locate("https://[::ffff:127.0.0.1]:8443/").addresses == ("127.0.0.1",)
    with pytest.raises(Refused):
        Guard(allow=["127.0.0.0/8"]).locate("https://[::ffff:10.0.0.1]/")


def test_the_operator_opens_networks_and_nothing_beside_them() -> None:
    guard = Guard(allow=["10.1.0.0/16", "fd00::/8"], resolve=Names(["10.1.2.3"], ["10.2.0.1"]))
    assert guard.locate("https://10.1.2.3/").addresses == ("10.1.2.3",)
    assert guard.locate("https://[fd00::1]/").addresses == ("fd00::1",)
    assert guard.locate("https://inside.example/").addresses == ("10.1.2.3",)
    with pytest.raises(NoAnswer):
        guard.locate("https://inside.example/")
    for url in ("https://10.2.0.1/", "https://127.0.0.1/", "https://[fe80::1]/", "https://localhost/"):
        with pytest.raises(Refused):
            guard.locate(url)
    assert Guard(allow=["127.0.0.0/8"]).check_url("https://localhost:8443/").host == "localhost"


def test_no_ipv4_address_the_standard_library_calls_special_is_open() -> None:
    guard, special = Guard(), 0
    for number in range(1, 2**32, 2**16):
        address = IPv4Address(number)
        if not address.is_global or address.is_multicast or address.is_reserved:
            special += 1
            assert not guard.allows(address), address
    assert special > 16 * 2**8 * 2


@given(st.one_of(st.integers(0, 2**128 - 1), st.integers(0x20 << 120, (0x40 << 120) - 1)).map(IPv6Address))
def test_no_ipv6_address_the_standard_library_calls_special_is_open(address: IPv6Address) -> None:
    special = not address.is_global or address.is_multicast or address.is_reserved or address.is_site_local
    if special or address.sixtofour or address.teredo:
        assert not Guard().allows(address)


@given(st.text(max_size=60).map(lambda text: f"https://{text}"))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        url = Guard(resolve=never).check_url(text)
    except OutboundError:
        return
    assert url.host.isascii()
    assert url.target.startswith("/")


def test_the_systems_resolver_gives_each_address_once() -> None:
    found = look_up("127.0.0.1", 443)
    assert found == ["127.0.0.1"]


def test_the_settings_are_read_from_plain_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_OUTBOUND_ALLOW", "10.1.0.0/16, fd00::/8")
    monkeypatch.setenv("STILLHOUSE_OUTBOUND_HTTP", "true")
    guard = Guard.of(Settings())
    assert guard.check_url("http://10.1.0.1:8000/").port == 8000
    monkeypatch.setenv("STILLHOUSE_OUTBOUND_ALLOW", "10.1.0.1/16")
    with pytest.raises(ValueError, match="host bits set"):
        Settings()
