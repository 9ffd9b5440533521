"""
Our own HTTP/1.1 intermediary for CONNECT tunnels: the flat path.

mitmproxy's HTTP layers cost 1.5 ms a request; TLS and heads need 0.05 ms of it. Tunnels whose client speaks HTTP/1.1 are
carried here instead, with the same gate and so the same decisions, records and refusals.

    hello     what a ClientHello offers, to know who can be served here
    heads     request and response heads, strictly (RFC 9112)
    bodies    framing of bodies: decoding, and encoding anew
    streams   one TLS connection, either side
    leaves    certificates for intercepted hosts
    pool      verified upstream connections, kept warm for the same caller and grant
    tunnel    one client's requests, one after another
    layer     the seam to mitmproxy: takes a tunnel over, or leaves it to the stock layers
"""
