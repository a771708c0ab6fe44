"""Tables of scores, as Markdown and LaTeX."""
