"""HTTPS: keeps Caddy in front of the ingress, tells it what to do, and learns from it which certificates there are."""
