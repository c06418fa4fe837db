"""What holds for every test."""

from hypothesis import settings

# a machine that is busy with something else is no reason to fail
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")
