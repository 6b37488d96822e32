"""Sessions: what to do about an app that somebody uses, or no longer uses."""
