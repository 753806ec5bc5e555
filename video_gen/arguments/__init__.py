"""What can be said to each command of `video-gen`: one class each, whose fields are the options and their help. No torch.

A field's name is that of the argument to which it is handed over (`command_line.handed_over`); what several commands can be told
is a group of `Options`, which stands once, in `groups`.
"""
