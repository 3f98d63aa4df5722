"""The Composer: a window for writing with contexts, turn by turn and branch by branch. Needs the extra `composer`.

reading/    shows the transcript          writing/      the prompt and its lists
branching/  the tree, rerolls and edits   panels/       model, sampling, notices, status

window      puts them together            conductor     runs one action at a time and streams replies
link        runs calls to the broker      moves, rerolls   go back, edit and reroll
"""
