"""Writing a turn: the prompt, the three lists, and the draft made from them."""
