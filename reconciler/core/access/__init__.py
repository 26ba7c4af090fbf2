"""Access to the gRPC port: the identity of a peer, and the streams that it may open. Pure."""
