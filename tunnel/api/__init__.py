"""The tunnel inside a Python program: for trio, for asyncio, and for programs without either.

What programs use of it is offered by `tunnel` itself, and described in docs/python.md.
"""
