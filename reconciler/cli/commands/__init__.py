"""The commands of `zenvoy`.

Modules that only some commands need are imported in functions, so that commands start fast.
"""
