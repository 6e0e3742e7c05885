"""`penstock bench`: load for a server, and what it made of it. Knows servers from outside only: their addresses and answers."""
