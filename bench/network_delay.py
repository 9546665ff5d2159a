"""Delays what two network interfaces send each other, for kernels that have no netem.

Usage: network_delay.py MILLISECONDS INTERFACE INTERFACE
Makes both interfaces (TAP), prints a line once they are there, and then passes frames from each to the other, each so many
milliseconds after it came, until it is ended or an interface is gone.
"""
import collections
import errno
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
LONGEST_FRAME = 65536


def open_tap(name):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def take(descriptor, frames, delay):
    """Queues all frames that are there, with the time at which each is due."""
    try:
        while True:
            frames.append((time.monotonic() + delay, os.read(descriptor, LONGEST_FRAME)))
    except BlockingIOError:  # no more
        pass
    except OSError as error:
        if error.errno != errno.EIO:  # EIO: the interface is not up yet
            sys.exit("network_delay: an interface is gone")


def send_due(descriptor, frames):
    now = time.monotonic()
    while frames and frames[0][0] <= now:
        try:
            os.write(descriptor, frames[0][1])
        except OSError:  # lost, as on a cable that is pulled
            pass
        frames.popleft()


def main():
    delay = float(sys.argv[1]) / 1000
    one, other = (open_tap(name) for name in sys.argv[2:4])
    print("ready", flush=True)
    ways = ((one, other, collections.deque()), (other, one, collections.deque()))
    while True:
        due = [frames[0][0] for _, _, frames in ways if frames]
        wait = max(0, min(due) - time.monotonic()) if due else None
        readable = select.select([one, other], [], [], wait)[0]
        for source, target, frames in ways:
            if source in readable:
                take(source, frames, delay)
            send_due(target, frames)


if __name__ == "__main__":
    main()
