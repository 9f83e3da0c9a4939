"""Who is asking: static tokens in a file, OIDC, and the guard in front of every route. Without it all are `anonymous`."""
