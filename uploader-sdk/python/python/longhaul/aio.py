"""The same calls for asyncio.

Each call works in a thread of its own and leaves the event loop free. Cancelling the task stops the
work within a tenth of a second; what is on the box stays there, and the same call continues.
`on_progress` is called on the event loop.
"""

import asyncio
import functools

from . import _longhaul

__all__ = ["doctor", "find", "get", "ls", "push", "receipt", "rm", "status", "sync", "verify"]


async def _run(call, *args, on_progress=None, **kwargs):
    loop = asyncio.get_running_loop()
    stop = _longhaul.Stop()
    if on_progress is not None:
        kwargs["on_progress"] = functools.partial(loop.call_soon_threadsafe, on_progress)
    work = loop.run_in_executor(None, functools.partial(call, *args, stop=stop, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        # The thread lets go before the caller goes on; what it says no longer matters.
        await asyncio.wait([work])
        work.exception()
        raise


async def push(paths, **kwargs):
    return await _run(_longhaul.push, paths, **kwargs)


async def sync(paths, **kwargs):
    return await _run(_longhaul.sync, paths, **kwargs)


async def get(what, to=None, **kwargs):
    return await _run(_longhaul.get, what, to, **kwargs)


async def receipt(output, prefix="", **kwargs):
    return await _run(_longhaul.receipt, output, prefix, **kwargs)


async def verify(path, **kwargs):
    return await _run(_longhaul.verify, path, **kwargs)


async def rm(keys, **kwargs):
    return await _run(_longhaul.rm, keys, **kwargs)


async def ls(prefix="", **kwargs):
    return await _run(_longhaul.ls, prefix, **kwargs)


async def status(**kwargs):
    return await _run(_longhaul.status, **kwargs)


async def doctor(**kwargs):
    return await _run(_longhaul.doctor, **kwargs)


async def find(listen=3.0):
    return await _run(_longhaul.find, listen)
