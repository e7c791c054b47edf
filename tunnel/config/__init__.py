"""peer.conf: text to frozen dataclasses and back, with errors that name place and remedy."""
