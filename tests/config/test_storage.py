import pytest
from sqlalchemy import make_url

from proxy.config.schema_storage import Database

URLS = [
    (Database(path="/var/lib/x.db"), "sqlite+aiosqlite:////var/lib/x.db"),
    (Database(path="data/x.db"), "sqlite+aiosqlite:///data/x.db"),
    (Database(driver="postgres", database="d"), "postgresql+asyncpg://127.0.0.1/d"),
    (
        Database(driver="postgres", host="::1", port=5433, user="u", password="p@:/ä", database="d"),
        "postgresql+asyncpg://u:p%40%3A%2F%C3%A4@[::1]:5433/d",
    ),
    (
        Database(driver="postgres", host="/run/pg", port=5433, user="u", database="d"),
        "postgresql+asyncpg://u:@/d?host=%2Frun%2Fpg&port=5433",
    ),
    (Database(driver="postgres", host="/run/pg", database="d"), "postgresql+asyncpg:///d?host=%2Frun%2Fpg"),
    (Database(driver="mysql", host="db", user="u", database="d"), "mysql+aiomysql://u:@db/d"),
    (
        Database(driver="mysql", host="/run/my.sock", user="u", database="d"),
        "mysql+aiomysql://u:@/d?unix_socket=%2Frun%2Fmy.sock",
    ),
    (Database(dsn="postgres://u:p@h/d"), "postgresql+asyncpg://u:p@h/d"),
    (Database(dsn="mariadb://u:p@h/d?charset=utf8mb4"), "mysql+aiomysql://u:p@h/d?charset=utf8mb4"),
    (Database(dsn="postgresql+psycopg://u:p@h/d"), "postgresql+psycopg://u:p@h/d"),
]


@pytest.mark.parametrize(("database", "url"), URLS)
def test_a_database_has_one_url_however_it_is_written(database, url):
    assert database.url() == url
    assert make_url(url).database


def test_a_password_survives_the_url():
    database = Database(driver="postgres", user="a b", password="p@:/?#[]%$ä", database="d")

    parsed = make_url(database.url())

    assert (parsed.username, parsed.password, parsed.host) == ("a b", "p@:/?#[]%$ä", "127.0.0.1")
