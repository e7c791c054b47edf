"""`tunnel pair`: both ends of a new tunnel, set up over ssh.

On each host an agent does the work (`agent`): it makes the private key there, writes the conf,
brings the tunnel up, and undoes all of that if it does not hear otherwise. It is asked by lines of
JSON (`messages`) on its standard input: here a process of ours, there one that ssh starts (`ssh`).
The order of the steps is in `pairing`. Each end is told only the other's public key and the
preshared key that both share. `choosing` is also for `tunnel new`.
"""
