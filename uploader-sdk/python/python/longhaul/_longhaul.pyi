import os
from collections.abc import Callable, Iterable
from typing import Literal, Optional, Union, final

StrPath = Union[str, "os.PathLike[str]"]
Delivery = Literal["on_box", "in_flight", "in_cloud", "verified", "failed"]

__version__: str

class LonghaulError(Exception):
    """Everything that this package raises by itself."""

class TicketError(LonghaulError):
    """The ticket cannot be read, is not one, or has expired."""

class NoBoxError(LonghaulError):
    """Nobody on the network answers for the ticket's box."""

class NotTheBoxError(LonghaulError):
    """Something answers at the box's address that is not the box; nothing was sent."""

class PushError(LonghaulError):
    """The push ended before it had tried every file."""

    report: Optional[PushReport]
    """What is safe on the box all the same; None where nothing was tried."""

class DeliveryError(LonghaulError):
    """The box does not say how far it has carried the files; they are safe on it."""

    report: PushReport

@final
class Progress:
    """How far a push has come."""

    files: int
    """Files to push; 0 while the folders are still being walked."""
    bytes: int
    files_on_box: int
    bytes_on_box: int
    bytes_moving: int
    """Bytes that the network has taken and that are not yet safe on the box."""
    files_failed: int
    files_in_cloud: int
    bytes_in_cloud: int
    retries: int

@final
class FileReport:
    """A file that is safe on the box."""

    path: str
    key: str
    size: int
    blake3: str
    """BLAKE3 of the bytes that were sent, in hexadecimal."""
    etag: str
    outcome: Literal["sent", "resumed", "already_there"]
    delivery: Optional[Delivery]
    """How far the box has carried it; None unless waited for."""
    delivery_failure: Optional[str]
    """Why it cannot be delivered, where `delivery` is "failed"."""

@final
class FailedFile:
    """A file that is not on the box."""

    path: str
    key: str
    reason: str

@final
class SkippedFile:
    """Something that was left out before anything was sent."""

    path: str
    reason: Literal["symlink", "special", "unreadable", "not_utf8", "name_refused", "same_key"]
    detail: str

@final
class PushReport:
    """What one push achieved."""

    box_id: str
    address: str
    bucket: str
    files: list[FileReport]
    failed: list[FailedFile]
    skipped: list[SkippedFile]
    bytes: int
    bytes_sent: int
    """Bytes that were sent this time; the rest was on the box already."""
    retries: int
    seconds: float
    is_complete: bool
    """Whether nothing failed. Symbolic links and special files are left out by design."""

@final
class FoundBox:
    """A box that announces itself on the network."""

    box_id: str
    addresses: list[str]
    """`ADDRESS:PORT`, IPv4 first."""
    agent_version: str
    code: Optional[str]
    """The code of what keeps it from the cloud, `LH-nnn`."""
    advice: Optional[str]

def push(
    paths: Union[StrPath, Iterable[StrPath]],
    *,
    ticket: Optional[StrPath] = None,
    prefix: str = "",
    wait: bool = False,
    box: Optional[str] = None,
    on_progress: Optional[Callable[[Progress], object]] = None,
    patience: float = 300.0,
) -> PushReport:
    """Send files and folders (their content) to the box, and return when all are safe on it.

    :param paths: a file, a folder, or several.
    :param ticket: the file from the portal; by default what `LONGHAUL_TICKET` names.
    :param prefix: folder in the bucket.
    :param wait: return only when everything is verified in the cloud.
    :param box: where the box is, when it is not found by itself: `https://ADDRESS:PORT`.
    :param on_progress: called about ten times a second; what it raises ends the push.
    :param patience: how long to keep trying while the box does not answer, in seconds.
    :raises TicketError, NoBoxError, NotTheBoxError, PushError, DeliveryError: see there.

    A single file that fails is in the report, not an exception.
    """

def find(listen: float = 3.0) -> list[FoundBox]:
    """Listen on the network for `listen` seconds and return the boxes that announce themselves."""
