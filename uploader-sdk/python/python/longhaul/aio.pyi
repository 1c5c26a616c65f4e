from collections.abc import Callable, Iterable
from typing import Optional, Union

from ._longhaul import (
    Diagnosis,
    FoundBox,
    GetReport,
    Listed,
    Progress,
    PushReport,
    RemoveReport,
    Status,
    StrPath,
    SyncReport,
    VerifyReport,
)

__all__ = ["doctor", "find", "get", "ls", "push", "receipt", "rm", "status", "sync", "verify"]

async def push(
    paths: Union[StrPath, Iterable[StrPath]],
    *,
    ticket: Optional[StrPath] = None,
    prefix: str = "",
    wait: bool = False,
    box: Optional[str] = None,
    on_progress: Optional[Callable[[Progress], object]] = None,
    patience: float = 300.0,
) -> PushReport: ...
async def sync(
    paths: Union[StrPath, Iterable[StrPath]],
    *,
    ticket: Optional[StrPath] = None,
    prefix: str = "",
    delete: bool = False,
    dry_run: bool = False,
    checksum: bool = False,
    wait: bool = False,
    box: Optional[str] = None,
    on_progress: Optional[Callable[[Progress], object]] = None,
    patience: float = 300.0,
) -> SyncReport: ...
async def get(
    what: str,
    to: Optional[StrPath] = None,
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    on_progress: Optional[Callable[[Progress], object]] = None,
    patience: float = 300.0,
) -> GetReport: ...
async def receipt(
    output: StrPath,
    prefix: str = "",
    *,
    ticket: Optional[StrPath] = None,
    token: Optional[str] = None,
    bucket: Optional[str] = None,
    cloud: Optional[str] = None,
    root: Optional[StrPath] = None,
) -> int: ...
async def verify(
    path: StrPath,
    *,
    receipt: Optional[StrPath] = None,
    ticket: Optional[StrPath] = None,
    root: Optional[StrPath] = None,
    prefix: str = "",
    delivered: bool = False,
) -> VerifyReport: ...
async def rm(
    keys: Union[str, Iterable[str]],
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    patience: float = 30.0,
) -> RemoveReport: ...
async def ls(
    prefix: str = "",
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    patience: float = 30.0,
) -> list[Listed]: ...
async def status(
    *, ticket: Optional[StrPath] = None, box: Optional[str] = None
) -> Status: ...
async def doctor(
    *, ticket: Optional[StrPath] = None, box: Optional[str] = None
) -> Diagnosis: ...
async def find(listen: float = 3.0) -> list[FoundBox]: ...
