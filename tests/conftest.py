"""What holds for every test."""

import os
import signal

# Tables are as wide as COLUMNS says; what a test expects must not depend on who runs it.
os.environ.pop("COLUMNS", None)

# Who is started in the background of a shell ignores SIGINT, and below nohup SIGHUP; so would every
# process that a test starts in order to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
