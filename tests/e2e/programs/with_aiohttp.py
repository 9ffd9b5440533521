"""URL KEY [GRANT]: one POST by aiohttp."""

import asyncio
import sys

import aiohttp


async def main(url, key, grant=None):
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Alter-Grant": grant} if grant else {})
    async with aiohttp.ClientSession(trust_env=True) as session:
        answer = await session.post(f"{url}/echo", headers=headers, data=b"amount=1")
        print(answer.status, await answer.text())


asyncio.run(main(*sys.argv[1:]))
