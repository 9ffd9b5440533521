"""
A long way to the upstream: every byte arrives half a round trip after it was sent, in either direction.

    python bench/distance.py PORT MILLISECONDS      to PORT on 127.0.0.1, there and back in so much; prints its own port

TCP's own handshake costs a round trip, as it does over a real distance: nothing passes before one has gone by.
"""

import asyncio
import sys


async def main():
    port, half = int(sys.argv[1]), float(sys.argv[2]) / 2000
    server = await asyncio.start_server(lambda *client: serve(*client, port=port, half=half), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def serve(reader, writer, *, port, half):
    await asyncio.sleep(2 * half)
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(carry(reader, there_writer, half=half), carry(there_reader, writer, half=half))


async def carry(reader, writer, *, half):
    """In order, each piece `half` seconds after it came."""
    loop = asyncio.get_running_loop()
    while piece := await reader.read(1 << 16):
        loop.call_later(half, writer.write, piece)
    loop.call_later(half, writer.close)


if __name__ == "__main__":
    asyncio.run(main())
