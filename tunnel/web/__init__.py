"""A page for a hub: its peers, their traffic and who connected when, in a browser.

`messages` says what crosses between page and server, `api` which operations there are, `hub` does
them with the functions that the command line has, `login` and `guard` keep others out.
"""
