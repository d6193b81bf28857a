"""What the world can do to us, as exceptions.

    EpaxosError
    ├── ConfigError            a setting is wrong; names the field and the fix
    ├── AddressError           an address cannot be listened on or reached; names it and the fix
    ├── CodecError             a peer, a client or the disk sent nonsense: close the link, cut it
    ├── StorageError           the disk failed or holds what it must not: the process ends
    └── RequestError           a client's request did not succeed
        ├── Definite           it did not happen and never will
        └── Ambiguous          it may have happened

Our own bugs are not here: they are assertions, and stop the replica (fail-stop).
"""


class EpaxosError(Exception):
    """Base of all; never raised itself."""


class ConfigError(EpaxosError):
    """A setting is wrong. The message names the field and says what to write instead."""


class AddressError(EpaxosError):
    """An address cannot be listened on or reached. The message names it and says what to do."""


class CodecError(EpaxosError):
    """Bytes that do not decode. The message says what was being read and where it went wrong."""


class StorageError(EpaxosError):
    """The disk failed or holds what it must not. The process ends; a failed sync is never
    retried."""


class RequestError(EpaxosError):
    """Base of the two fates of a failed request."""


class Definite(RequestError):
    """The request did not and will not take effect."""


class Ambiguous(RequestError):
    """The request may have taken effect, now or later."""
