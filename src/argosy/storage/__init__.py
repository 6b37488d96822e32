"""Files by content and ranks' output on the server's disk. Blocking disk work never stalls the event loop."""
