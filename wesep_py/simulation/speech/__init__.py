"""Who says what, and when: the voices of a corpus, the stretches they speak, and their places in a mixture."""
