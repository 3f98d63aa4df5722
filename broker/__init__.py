"""The ROUTER broker: a pure state machine (events in, actions out) and a Poller loop around it."""
