"""The Composer: a window for writing with contexts, turn by turn and branch by branch. Needs the extra `composer`.

reading/    the transcript as it is shown      writing/    the prompt and its lists
branching/  the tree, and trying again         panels/     model, sampling, notices, status

window      puts them together                 conductor   one act at a time, and what streams
link        the jobs that talk to the broker   moves, many the acts that go back and try again
"""
