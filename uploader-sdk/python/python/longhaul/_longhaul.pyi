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

class ReceiptError(LonghaulError):
    """Receipts could not be fetched, or one does not hold; the message names its line."""

class DeliveryError(LonghaulError):
    """The box does not say how far it has carried the files; they are safe on it."""

    report: PushReport

class GetError(LonghaulError):
    """The get ended before it had tried every object, or nothing of that name is on the box."""

    report: Optional[GetReport]
    """What is here all the same; None where nothing was tried."""

class BoxError(LonghaulError):
    """The box does not answer, or refuses."""

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
    notice: Optional[str]
    """What is odd about it, such as a name that differs from another one in case alone."""
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
    reason: Literal["symlink", "special", "unreadable", "not_utf8", "name_refused", "same_key", "unfinished"]
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

@final
class WouldSend:
    """A file that a dry run would send."""

    path: str
    key: str
    size: int
    replaces: bool
    """Whether the box holds another object of that key."""

@final
class SyncReport:
    """What one sync achieved, or would do."""

    push: PushReport
    would_send: Optional[list[WouldSend]]
    """What would be sent; None unless it was a dry run."""
    removed: list[str]
    """Keys that were removed from the box, or would be in a dry run."""
    not_removed: list[NotRemoved]
    not_removed_because: Optional[str]
    """Why nothing was removed though it was asked for."""
    is_complete: bool

@final
class GotFile:
    """A file that is here, whole."""

    key: str
    path: str
    size: int
    blake3: Optional[str]
    verified_by: Literal["blake3", "crc64nvme", "length"]
    outcome: Literal["fetched", "resumed", "already_there"]

@final
class GetReport:
    """What one get achieved."""

    box_id: str
    address: str
    bucket: str
    files: list[GotFile]
    failed: list[FailedFile]
    bytes: int
    bytes_received: int
    """Bytes that came this time; the rest was here already."""
    retries: int
    seconds: float
    is_complete: bool

@final
class NotRemoved:
    """An object that the box still holds, or never did."""

    key: str
    reason: str

@final
class RemoveReport:
    """What one removal achieved."""

    removed: list[str]
    failed: list[NotRemoved]

@final
class Listed:
    """An object on the box."""

    key: str
    size: int
    etag: str
    modified: Optional[str]
    """When it was put, RFC 3339."""
    delivery: Optional[Delivery]
    delivery_failure: Optional[str]

@final
class Rung:
    """One step of the box's way to the cloud."""

    name: str
    status: Literal["ok", "failed", "not_reached", "trying"]
    code: Optional[str]
    evidence: str
    advice: Optional[str]

@final
class Status:
    """The box at a glance."""

    box_id: str
    address: str
    agent_version: str
    identifying: bool
    capacity_bytes: int
    used_bytes: int
    objects: int
    pending_objects: int
    """Objects that are not yet verified in the cloud."""
    pending_bytes: int
    rungs: list[Rung]

@final
class Check:
    """One step of the doctor's walk."""

    name: str
    result: Literal["ok", "warning", "failed"]
    detail: str
    advice: str
    """What to do; empty where it is well."""

@final
class Diagnosis:
    """Everything that the doctor looked at, in order."""

    checks: list[Check]
    is_well: bool

@final
class Compared:
    """A file beside its receipt."""

    path: str
    key: Optional[str]
    """The object of the receipt; None where there is none."""
    verdict: Literal["same", "not_in_cloud", "changed", "missing", "no_receipt", "unreadable"]
    why: Optional[str]
    """What the system said, where it is unreadable."""

@final
class VerifyReport:
    """What receipts prove, and how files compare with them."""

    receipts: int
    in_cloud: int
    """Receipts that the cloud has signed: compared in the bucket."""
    files: list[Compared]
    holds: bool
    """Whether every file is what was taken (and delivered, where that was asked)."""

@final
class Stop:
    """Ends a call from another thread: pass one as `stop`, then `set()` it.

    The call raises RuntimeError within a tenth of a second; what is on the box stays there.
    """

    def __init__(self) -> None: ...
    def set(self) -> None: ...

def push(
    paths: Union[StrPath, Iterable[StrPath]],
    *,
    ticket: Optional[StrPath] = None,
    prefix: str = "",
    wait: bool = False,
    box: Optional[str] = None,
    on_progress: Optional[Callable[[Progress], object]] = None,
    patience: float = 300.0,
    stop: Optional[Stop] = None,
) -> PushReport:
    """Send files and folders (their content) to the box, and return when all are safe on it.

    :param paths: a file, a folder, or several.
    :param ticket: the file that you got with the box; by default what `LONGHAUL_TICKET` names.
    :param prefix: folder in the bucket.
    :param wait: return only when everything is verified in the cloud.
    :param box: where the box is, when it is not found by itself: `https://ADDRESS:PORT`.
    :param on_progress: called about ten times a second; what it raises ends the push.
    :param patience: how long to keep trying while the box does not answer, in seconds.
    :raises TicketError, NoBoxError, NotTheBoxError, PushError, DeliveryError: see there.

    A single file that fails is in the report, not an exception.
    """

def sync(
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
    stop: Optional[Stop] = None,
) -> SyncReport:
    """Make the box hold what is in the folders: send what is not there, compare the rest.

    :param delete: remove what is below `prefix` on the box and not here, once all else is sent.
    :param wait: return only when everything is verified in the cloud.
    :param dry_run: say what would be done, and do nothing.
    :param checksum: read and compare every file, also those that an earlier run has compared.
    :raises TicketError, NoBoxError, NotTheBoxError, PushError: see there.
    """

def get(
    what: str,
    to: Optional[StrPath] = None,
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    on_progress: Optional[Callable[[Progress], object]] = None,
    patience: float = 300.0,
    stop: Optional[Stop] = None,
) -> GetReport:
    """Fetch the object `what`, or everything below the folder `what`, into `to` (else here).

    The bytes are compared with the box's checksums before a file is put in its place.
    :raises TicketError, NoBoxError, NotTheBoxError, GetError, BoxError: see there.
    """

def receipt(
    output: StrPath,
    prefix: str = "",
    *,
    ticket: Optional[StrPath] = None,
    token: Optional[str] = None,
    bucket: Optional[str] = None,
    cloud: Optional[str] = None,
    root: Optional[StrPath] = None,
    box: Optional[str] = None,
    stop: Optional[Stop] = None,
) -> int:
    """Fetch the receipts of what was sent into a file; returns how many.

    The cloud is asked; where it cannot be reached from here, the ticket's box asks it for you.

    :param prefix: only objects whose key begins with this.
    :param ticket: the ticket that the files were sent with, also one that has ended.
    :param token: a token for the cloud instead, with `bucket`.
    :param cloud: the cloud's address; otherwise the ticket's.
    :param root: the fleet's root certificate; otherwise the ticket's.
    :param box: the box's address, for when it is asked; otherwise it is looked for.
    :raises ReceiptError: they could not be fetched, or one does not hold.
    """

def verify(
    path: StrPath,
    *,
    receipt: Optional[StrPath] = None,
    ticket: Optional[StrPath] = None,
    root: Optional[StrPath] = None,
    prefix: str = "",
    delivered: bool = False,
    stop: Optional[Stop] = None,
) -> VerifyReport:
    """Prove without a network that a file or a folder is what was taken.

    :param path: a file or a folder; without `receipt`, a file of receipts.
    :param root: the fleet's root certificate; otherwise the ticket's, whose box the receipts must be of.
    :param prefix: folder in the bucket that the folder was sent to.
    :param delivered: accept only what the cloud has signed as compared in the bucket.
    :raises ReceiptError: a receipt does not hold, or is of another box.
    """

def rm(
    keys: Union[str, Iterable[str]],
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    patience: float = 30.0,
    stop: Optional[Stop] = None,
) -> RemoveReport:
    """Remove objects from the box; a key with `/` at its end is everything below that folder.

    What has reached the cloud stays there. Nobody is asked.
    """

def ls(
    prefix: str = "",
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    patience: float = 30.0,
    stop: Optional[Stop] = None,
) -> list[Listed]:
    """List the objects whose key begins with `prefix`, and how far each has come."""

def status(
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    stop: Optional[Stop] = None,
) -> Status:
    """Ask the box how it is."""

def doctor(
    *,
    ticket: Optional[StrPath] = None,
    box: Optional[str] = None,
    stop: Optional[Stop] = None,
) -> Diagnosis:
    """Walk from the ticket to the cloud, and say where it breaks and what to do."""

def find(listen: float = 3.0, *, stop: Optional[Stop] = None) -> list[FoundBox]:
    """Listen on the network for `listen` seconds and return the boxes that announce themselves."""
