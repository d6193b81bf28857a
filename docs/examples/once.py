"""An aiohttp session that sends every request once.

    async with aiohttp.ClientSession(middlewares=[once]) as session: ...

Without it aiohttp sends GET, PUT and DELETE again when their connection is lost, without a word.
"""

import aiohttp


async def once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Turn the errors after which aiohttp would send again into one after which it does not."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(
            f"the connection was lost, and the request may have happened: {error}"
        ) from error
