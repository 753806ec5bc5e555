"""The studio's Live page: press to first frame, and the rate of the others when one page of ten never reads.

python -m benchmarks.live --model bounce
"""

import argparse
import asyncio
import json
import struct
import tempfile
import time
import urllib.request
from pathlib import Path

BLOCK = struct.Struct("<IfdHHHH")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bounce")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which a rate is taken")
    parser.add_argument("--tries", type=int, default=5)
    said = parser.parse_args()
    import threading

    import uvicorn

    from video_gen.web.access import listen
    from video_gen.web.studio.app import make_app
    from video_gen.web.studio.roots import Roots
    from video_gen.web.studio.studio import Studio

    with tempfile.TemporaryDirectory() as folder, listen("127.0.0.1", 0, "live") as listener:
        studio = Studio(Path(folder), said.model, Roots(()), Roots(()))
        studio.queue.start = lambda: None  # type: ignore[method-assign]  # the Create page's model is not measured here
        server = uvicorn.Server(uvicorn.Config(make_app(studio), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            asyncio.run(measure(address, studio, said))
        finally:
            server.should_exit = True
            thread.join()


async def measure(address, studio, said) -> None:
    began = time.perf_counter()
    post(address, "open", {"model": said.model})
    while studio.live.known["status"] != "ready":
        await asyncio.sleep(0.02)
    steps = studio.live.known["lively"]
    print(f"model {said.model} open after {time.perf_counter() - began:.1f} s; {steps} steps a block keep up")
    first = []
    for seed in range(said.tries):
        async with page(address) as frames:
            pressed = time.perf_counter()
            await asyncio.to_thread(post, address, "start", {"seed": seed, "num_steps": steps})
            while BLOCK.unpack_from(await frames())[2] > 0:  # the last one's
                pass
            first.append(time.perf_counter() - pressed)
            await asyncio.to_thread(post, address, "run", {"on": False})
    print(f"press to first frame: median {sorted(first)[len(first) // 2]:.2f} s, worst {max(first):.2f} s")
    for pages, stalled in ((1, 0), (10, 1)):
        print(
            f"{pages} pages, {stalled} stalled: {await rate(address, pages, stalled, said.seconds, steps):.2f} frames a second"
        )


async def rate(address: str, pages: int, stalled: int, seconds: float, steps: int) -> float:
    """Frames a second that the slowest of the pages that read gets."""
    opened = [page(address) for _ in range(pages)]
    readers = [await each.__aenter__() for each in opened]
    await asyncio.to_thread(post, address, "start", {"seed": 1, "num_steps": steps})

    async def read(frames) -> float:
        for _ in range(4):
            await frames()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            count += BLOCK.unpack_from(await frames())[3]
        return count / (time.perf_counter() - began)

    found = await asyncio.gather(*(read(frames) for frames in readers[stalled:]))
    for each in opened:
        await each.__aexit__(None, None, None)
    return min(found)


class page:
    """A page that watches; `await frames()` is the next block."""

    def __init__(self, address: str):
        self.address = address

    async def __aenter__(self):
        import websockets

        self.socket = await websockets.connect(f"ws://{self.address}/api/live/frames", max_size=None, max_queue=2)
        return self.socket.recv

    async def __aexit__(self, *error: object) -> None:
        await self.socket.close()


def post(address: str, what: str, body: dict) -> None:
    request = urllib.request.Request(
        f"http://{address}/api/live/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request).read()


if __name__ == "__main__":
    main()
