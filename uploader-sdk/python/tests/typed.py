"""What type checkers say of the package: `mypy --strict` reads this, nobody runs it."""

from typing import Literal, Optional

import longhaul
import longhaul.aio


def synchronously() -> None:
    pushed = longhaul.push(["a", "b"], ticket="t", wait=True, prefix="p")
    notice: Optional[str] = pushed.files[0].notice
    synced: longhaul.PushReport = longhaul.sync("a", wait=True, checksum=True).push
    receipts: int = longhaul.receipt("out", "p/", ticket="t")
    token: int = longhaul.receipt("out", token="t", bucket="b", cloud="https://c", root="r")
    verdict: Literal[
        "same", "not_in_cloud", "changed", "missing", "no_receipt", "unreadable"
    ] = longhaul.verify("a", receipt="out", delivered=True).files[0].verdict
    longhaul.verify("a", nonsense=1)  # type: ignore[call-arg]
    print(notice, synced, receipts, token, verdict)


async def asynchronously() -> None:
    synced: longhaul.SyncReport = await longhaul.aio.sync("a", wait=True)
    count: int = await longhaul.aio.receipt("out")
    holds: bool = (await longhaul.aio.verify("a", root="r")).holds
    print(synced, count, holds)
