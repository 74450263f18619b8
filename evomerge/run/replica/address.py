"""What the URL of a shared run means; a password in it never reaches a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final
from urllib.parse import parse_qsl, unquote, urlencode

from evomerge.errors import InvalidInput
from evomerge.plain_text import without_secrets

SCHEMES = ("postgresql://", "postgres://")
_HIDDEN = "***"
_LONGEST = 200


@final
@dataclass(frozen=True)
class Address:
    """A database, and the run in it that is meant; an empty `run` means none was named.

    `plain` is the URL without user and password. As text, the password is hidden.
    """

    plain: str
    user: str | None
    password: str | None
    run: str = ""

    def __post_init__(self) -> None:
        if not self.run.isprintable() or len(self.run) > _LONGEST:
            raise InvalidInput(
                f"storage: {self.run!a} cannot be the name of a run in a database; choose one "
                f"of at most {_LONGEST} printable characters with URL#NAME"
            )

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTIONS][#RUN].

        A password may contain any character but "/"; without one, libpq's PGPASSWORD and
        ~/.pgpass apply.

        Raises:
            InvalidInput: no such URL, or it names no database.
        """
        if not is_address(text):
            raise InvalidInput(
                "storage: expected a URL such as postgresql://USER@HOST/DATABASE, got "
                f"{without_secrets(text)}"
            )
        scheme, _, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        if "@" in path:  # most likely the password has a "/", so nothing of it is shown
            raise InvalidInput(
                'storage: expected no "@" after the first "/" of the URL; in a password write "/" '
                'as %2F, in other places "@" as %40'
            )
        account, at, hosts = authority.rpartition("@")
        user, colon, password = account.partition(":")
        target, _, run = f"{hosts}{slash}{path}".partition("#")
        target, _, query = target.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        secret = options.pop("password", unquote(password) if colon else None)
        plain = f"{scheme}://{target}" + (f"?{urlencode(options)}" if options else "")
        address = cls(plain, unquote(user) if at and user else None, secret, unquote(run))
        if not target.partition("/")[2]:
            raise InvalidInput(f"storage: {address}: expected a database after the host: HOST/NAME")
        return address

    def named(self, run: str) -> Address:
        """The same database with another run."""
        return Address(self.plain, self.user, self.password, run)

    def hidden(self, text: str) -> str:
        """`text` without the password, in case a library quotes it."""
        options = parse_qsl(self.plain.partition("?")[2])
        others = [value for name, value in options if "password" in name.lower()]
        for secret in filter(None, (self.password, *others)):
            text = text.replace(secret, _HIDDEN)
        return text

    def __str__(self) -> str:
        scheme, _, rest = without_secrets(self.plain).partition("://")
        secret = f":{_HIDDEN}" if self.password is not None else ""
        account = f"{self.user or ''}{secret}@" if self.user or secret else ""
        return f"{scheme}://{account}{rest}{f'#{self.run}' if self.run else ''}"

    def __repr__(self) -> str:
        return f"Address({self})"


def is_address(text: str) -> bool:
    """Whether `text` is meant as the URL of a database, not as a path."""
    return text.startswith(SCHEMES)
