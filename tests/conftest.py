"""What holds for every test."""

import signal

from hypothesis import settings

# a machine that is busy with something else is no reason to fail
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")

# started in the background or under nohup, processes inherit that Ctrl-C is ignored
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
