"""`zenvoy doctor` against a cluster: what is installed, permitted, connected and asked for, and who fights over it."""
