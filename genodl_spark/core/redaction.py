"""Which settings are secrets, and texts without them: for all that is stored, printed or raised.

A key is secret by one of its words. What a run was given for such keys is taken out of any text, wherever it turns up;
so is the password of a URL, and what stands behind `password=` and its kin.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
_SHORTEST = 6  # characters of a secret that is looked for in any text: shorter ones are parts of too many words
_WORDS = (
    "password|passwd|passphrase|secret|token|credential|keystore|truststore|"
    "api_?key|access_?key|private_?key|account_?key"
)
# secret as a whole part of a key: fs.s3a.secret.key, fs.azure.account.key.NAME, but not predict.passes
_PARTS = "key|sas|sig|pwd|pass"
# for spark.redaction.regex: keys and values
SPARK_PATTERN = rf"(?i)({_WORDS})|(^|[._/])({_PARTS})($|[._/])|://[^/\s@:]*:[^\s]*@"
_KEY = re.compile(rf"(?:{_WORDS})|(?:^|[._/])(?:{_PARTS})(?:$|[._/])", re.IGNORECASE)
# A password may have a slash or an @ in it, as drivers of databases take it; digits and a slash are a port and a path.
_PASSWORD = re.compile(r"(?<=://)([^/\s@:\['\"]*):(?!\d+/)([^\s'\"]+)@")
# elsewhere a user may be a container or a bucket
_USER = re.compile(r"(?<=https://)()([^/\s@:'\"]+)@|(?<=http://)()([^/\s@:'\"]+)@")
_ASSIGNED = re.compile(r"(?<![\w./\-])([\w.\-]{1,200})(=)([^\s&;,'\"]+)")
_learnt: set[str] = set()


def is_secret(key: str) -> bool:
    """Whether the values of a dotted key are secret."""
    return _KEY.search(key) is not None


def learn(value: Any, key: str = "") -> None:
    """Takes note of the secrets among nested settings: from here on `text` leaves them out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            learn(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            learn(inner, key)
    elif isinstance(value, str):
        for secret in [value] if is_secret(key) else [password for _, password in _PASSWORD.findall(value)]:
            forms = {secret, unquote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}
            _learnt.update(form for form in forms if len(form) >= _SHORTEST)


def text(content: str) -> str:
    """A text without secrets."""
    for secret in sorted(_learnt, key=len, reverse=True):
        content = content.replace(secret, HIDDEN)
    content = _PASSWORD.sub(rf"\1:{HIDDEN}@", content)
    content = _USER.sub(f"{HIDDEN}@", content)
    return _ASSIGNED.sub(lambda found: f"{found[1]}={HIDDEN}" if is_secret(found[1]) else found[0], content)


def settings(value: Any, key: str = "") -> Any:
    """Nested settings without secrets: those of secret keys are hidden as a whole."""
    if isinstance(value, dict):
        return {name: settings(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [settings(inner, key) for inner in value]
    if isinstance(value, str) and value:
        return HIDDEN if is_secret(key) else text(value)
    return value


def arguments(given: Sequence[str]) -> list[str]:
    """Words of a command line without secrets, of which it takes note."""
    found = []
    for word in given:
        option = "--set=" if word.startswith("--set=") else ""
        key, separator, value = word.removeprefix(option).partition("=")
        hidden = bool(separator) and is_secret(key) and not key.startswith("-")
        learn(value.strip("'\""), key if hidden else "")
        found.append(f"{option}{key}={HIDDEN}" if hidden else text(word))
    return found


def document(value: Any) -> Any:
    """Nested values whose keys are no settings, with the texts among them as of `text`."""
    if isinstance(value, dict):
        return {name: document(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [document(inner) for inner in value]
    return text(value) if isinstance(value, str) else value


class Formatter(logging.Formatter):
    """Log lines and tracebacks without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return text(super().format(record))
