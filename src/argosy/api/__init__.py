"""The one typed API: endpoints, requests, responses and error codes. Faces and server both derive from it."""
