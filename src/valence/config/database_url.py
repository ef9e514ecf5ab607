"""Database URLs as names of data: what is one, and where a password is refused.

A secret is written as ``${NAME}`` and read from the environment when a connection is opened,
so that a spec, a run folder and a report hold the name of the variable only.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from valence.errors import SpecError

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SCHEME = re.compile(r"([A-Za-z][\w+.-]*)://")
_NO_DATABASE = {"http", "https", "ftp", "file", "s3", "gs", "hf"}
# As SQLAlchemy reads it: the password goes up to the first @, whatever is in it.
_USER = re.compile(r"[A-Za-z][\w+.-]*://[^:/]*:([^@]*)@")
_SECRET = re.compile(r"(?:pass(?:word|wd|phrase)?|pwd|secret|token)\s*=([^&;]*)", re.IGNORECASE)


def is_sql_url(name: str) -> bool:
    """Whether a name of data is the URL of a database, or a variable that holds one."""
    if VARIABLE.fullmatch(name):
        return True
    scheme = _SCHEME.match(name)
    return scheme is not None and scheme.group(1).lower() not in _NO_DATABASE


def refuse_password(url: str) -> None:
    """Refuse a URL unless every password in it is a ``${NAME}``.

    Raises:
        SpecError: without the URL, which would show the password.
    """
    user = _USER.match(url)
    secrets = [user.group(1)] if user else []
    secrets += _SECRET.findall(unquote(url.partition("?")[2]))
    if any(secret and not VARIABLE.fullmatch(secret) for secret in secrets):
        raise SpecError(
            "The database URL contains a password, which run folders would store; put it in an "
            "environment variable and use "
            "that: postgresql://user:${PGPASSWORD}@host/db"
        )


def short_name(url: str) -> str:
    """A name for tables: ``sqlite:///data/tweets.db`` → ``tweets``."""
    if whole := VARIABLE.fullmatch(url):
        return whole.group(1).lower()
    return PurePosixPath(url.partition("?")[0]).stem or "database"
