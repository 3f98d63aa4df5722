"""What the sockets' options are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

UNREAD = """
import sys
import zmq
from fuzz import zmtp
from ssmprov import sockets

context = zmq.Context()
router = context.socket(zmq.ROUTER)
sockets.prepare_router(router)
router.bind(f"ipc://{sys.argv[1]}")
monitor = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
peers = [zmtp.shake(sys.argv[1]) for _ in range(4)]
for peer in peers:
    zmtp.push(peer, zmtp.message([b"x" * 40]) * 3000)
    peer.close()
for _ in peers:
    assert monitor.poll(10_000), "a peer that has gone was not noticed"
    monitor.recv_multipart()
read = 0
while router.poll(100):
    router.recv_multipart()
    read += 1
print(read)
context.destroy(linger=0)
"""


def test_a_peer_that_goes_behind_a_burst_ends_no_process(tmp_path: Path) -> None:
    """libzmq aborts where it has stopped to read from a peer, which then goes: so it never stops."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", UNREAD, str(tmp_path / "s")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4 * 3000
