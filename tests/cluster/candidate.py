"""One candidate for a Lease, in its own process.

It prints a line of JSON for each news of the Lease, for each change of the end of its term, and for each time that it
notices that it was stopped for a while.

Arguments: kubeconfig, namespace, name, duration, margin, seconds that its wall clock is wrong by.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from reconciler.kubernetes.client.api import connect
from reconciler.kubernetes.client.leader_election import LeaderElection, LeaseTiming
from reconciler.kubernetes.client.lease_lock import LeaderElector, ticks

GAP_SECONDS = 1.0


def say(what: str, **more: object) -> None:
    print(json.dumps({"what": what, "at": ticks(), **more}), flush=True)


async def main() -> None:
    kubeconfig, namespace, name, duration, margin, wrong = sys.argv[1:]
    api = await connect(Path(kubeconfig))
    election = LeaderElection(name, LeaseTiming(float(duration), float(margin), every=0.5))
    elector = LeaderElector(
        api,
        (namespace, "zenvoy"),
        election,
        f"address-of-{name}",
        lambda since: say("leads", since=since, index=elector.next_index()),
        lambda leader: say("follows", leader=leader),
        wall=lambda: time.time() + float(wrong),
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    running = asyncio.create_task(elector.run())
    before, until = ticks(), 0.0
    while not stopped.is_set():
        if election.valid_until != until:
            until = election.valid_until
            say("term", until=until)
        if ticks() - before > GAP_SECONDS:
            say("thawed", valid=elector.valid())
        before = ticks()
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await elector.close()
    say("released", valid=elector.valid())
    await api.close()


asyncio.run(main())
