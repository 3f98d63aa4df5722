"""What a person writes: the prompt, the three lists, and the draft that becomes of them."""
