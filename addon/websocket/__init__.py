"""
WebSockets (RFC 6455): a handshake that is decided like any request, then frames both ways.

    handshake   what asks for a WebSocket, and what grants it
    frames      one side's frames, strictly, as they come
    relay       both sides: what goes on to the other, searched for the secret; no sockets, so both engines use it
    watch       ends what would not be allowed any more
"""
