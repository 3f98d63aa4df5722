"""The Composer: a window for writing with contexts, turn by turn and branch by branch. Needs the extra `composer`."""
