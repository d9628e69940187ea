"""The distributed room: what runs on many workers, by engines that exist."""
