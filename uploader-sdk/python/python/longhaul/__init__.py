"""Push files to a Longhaul box on your network, and know that they are safe."""

from ._longhaul import (
    DeliveryError,
    FailedFile,
    FileReport,
    FoundBox,
    LonghaulError,
    NoBoxError,
    NotTheBoxError,
    Progress,
    PushError,
    PushReport,
    SkippedFile,
    TicketError,
    __version__,
    find,
    push,
)

__all__ = [
    "DeliveryError",
    "FailedFile",
    "FileReport",
    "FoundBox",
    "LonghaulError",
    "NoBoxError",
    "NotTheBoxError",
    "Progress",
    "PushError",
    "PushReport",
    "SkippedFile",
    "TicketError",
    "__version__",
    "find",
    "push",
]
