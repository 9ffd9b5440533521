"""How long anybody may take. Seconds; both engines hold to them, and tests shorten them."""

OPENING = 20.0
"""For a client, from its CONNECT to the end of its ClientHello."""
HEAD = 75.0
"""For a client, until the head of its next request is here, idle time included, however it trickles in."""
ANSWER = 600.0
"""For an upstream until the head of its response, and for either side between two pieces of a body."""
CONNECT = 10.0
"""For an upstream, until it has proved itself in TLS."""
KEPT = 55.0
"""For an upstream connection, until its next request: most servers keep it for 60 or longer."""
GOODBYE = 60.0
"""For a client, to take what is left of a response once the connection is over."""
TICK = 1.0
"""How often it is looked at."""
