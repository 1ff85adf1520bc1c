"""The paper's tables and figures, measured again: plan -> measurements on disk -> Markdown and pictures."""
