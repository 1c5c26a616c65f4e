"""What schemathesis cannot know by itself: scripts/api.sh."""

import itertools
import re

import schemathesis

_numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key is for one request: another one with it is refused, however good it is otherwise. And
    schemathesis has values of its own for well-known headers: its `If-Match: 0` is none that the
    description allows."""
    headers = case.headers or {}
    if headers.get("If-Match") == "0":
        headers["If-Match"] = "*"
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!-~]{1,200}", key):
        headers["Idempotency-Key"] = f"{next(_numbers)}-{key}"
