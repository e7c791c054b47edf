"""The machine around the tunnel, as desired state that is applied, reconciled and undone."""
