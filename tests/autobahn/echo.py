"""A WebSocket server that sends back what it gets: the endpoint of tests/autobahn/run."""

import asyncio
import logging
import sys

import websockets
from websockets.asyncio.server import serve

# A case that breaks the protocol is what this is for.
logging.disable(logging.CRITICAL)


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosed:
        pass


async def main(port):
    async with serve(echo, "127.0.0.1", port, max_size=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))
