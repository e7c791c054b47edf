"""All cases. Importing this package declares them."""

from . import cookies as cookies
from . import handshakes as handshakes
from . import messages as messages
from . import timers as timers
from . import transport as transport
from . import uapi as uapi
